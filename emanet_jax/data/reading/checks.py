"""What can be wrong with published files, found while a set is prepared.

Training starts on records that are known to be sound.
"""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from PIL import Image

from emanet_jax.data.reading import images
from emanet_jax.data.reading.example import Example, Item
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_TURN_IT = 'Turn its pixels (as exiftran -ai does) and remove the tag.'


def check_items(spec: DatasetSpec, items: Sequence[Item]) -> None:
  """Checks that every listed file exists, before any is read.

  Args:
    spec: The data set, for the message.
    items: The examples of one split.

  Raises:
    UserError: A photo or label is missing, an id is listed twice or is no text.
  """
  seen: dict[str, Item] = {}
  for item in items:
    _check_id(item)
    if item.id in seen:
      raise UserError(
        f'{spec.name}: example {item.id!r} ({item.image.where}) is listed '
        f'twice (also {seen[item.id].image.where}). Remove or rename one of '
        'the two.'
      )
    seen[item.id] = item
    for kind, file in (('photo', item.image), ('label', item.label)):
      if file is not None and file.size is None:
        raise UserError(
          f'{spec.name}: example {item.id!r} has no {kind}: {file.where} does '
          f'not exist. Restore it, or unpack the archive again. {spec.download}'
        )


def _check_id(item: Item) -> None:
  try:
    item.id.encode()
  except UnicodeEncodeError:
    raise UserError(
      f'{item.image.where!r}: the name is not UTF-8. Rename the photo and its '
      'label.'
    ) from None


def check_photo_as_taken(content: bytes, where: str) -> None:
  """Checks what only photos fresh from a camera have.

  Published sets are read as all others read them, whatever their tags say.

  Args:
    content: Of the photo's file.
    where: Its place, for the message.

  Raises:
    UserError: An EXIF tag turns it, so that nobody knows which way up its mask
      is.
  """
  orientation = _orientation(content)
  if orientation != 1:
    raise UserError(
      f'{where} has an EXIF tag that turns it (orientation {orientation}), '
      f'which viewers obey and training does not. {_TURN_IT}'
    )


def _orientation(content: bytes) -> int:
  try:
    return images.orientation(Image.open(io.BytesIO(content)))
  except Exception:  # told by check_example
    return 1


def check_example(
  spec: DatasetSpec, example: Example
) -> tuple[tuple[int, int], Int[np.ndarray, '256']]:
  """Checks one example completely; what passes can be trained on.

  Args:
    spec: The data set.
    example: The example as it is going to be stored.

  Returns:
    Height and width, and how many pixels have each label.

  Raises:
    UserError: The photo cannot be used, see `images.decode_photo`; the label
      has another size or holds a value that is neither a class nor 255.
  """
  size = images.decode_photo(example.image, example.image_where).shape[:2]
  if example.label is None:
    counts = np.zeros(256, np.int64)
    counts[IGNORE_LABEL] = size[0] * size[1]
    return size, counts
  if example.label.shape != size:
    raise UserError(_sizes_differ(size, example))
  counts = np.bincount(example.label.ravel(), minlength=256)
  values = np.flatnonzero(counts)
  bad = values[(values >= spec.num_classes) & (values != IGNORE_LABEL)]
  if bad.size:
    raise UserError(
      f'{example.label_where} holds the value(s) {bad.tolist()}; {spec.name} '
      f'labels are 0..{spec.num_classes - 1} and {IGNORE_LABEL} (ignored). '
      'Check that it is the label file as published, in the right data set.'
    )
  return size, counts


def _sizes_differ(size: tuple[int, int], example: Example) -> str:
  (height, width), (rows, columns) = example.label.shape, size
  message = (
    f'{example.label_where} is {height}x{width} (height x width), but its '
    f'photo {example.image_where} is {rows}x{columns}. They must be equal: '
  )
  if (columns, rows) == (height, width) and _orientation(example.image) > 4:
    return f'{message}the photo has an EXIF tag that turns it. {_TURN_IT}'
  return f'{message}replace the one that was resized.'
