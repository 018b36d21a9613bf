"""What can be wrong with published files, found while a set is prepared.

Training starts on records that are known to be sound.
"""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int
from PIL import Image

from emanet_jax.data.reading.example import Example, Item
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = (0, 1)
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


def open_image(content: bytes, where: str) -> Image.Image:
  """Decodes an image completely.

  PIL is used because OpenCV fills the missing part of a cut JPEG with grey
  and reports nothing.

  Args:
    content: Of a file.
    where: Its place, for the message.

  Raises:
    UserError: The file is damaged or no image.
  """
  try:
    image = Image.open(io.BytesIO(content))
    image.load()
  # PIL's decoders raise many types: OSError, SyntaxError, struct.error, ...
  except Exception as error:
    raise UserError(
      f'{where} cannot be decoded ({error}): expected a complete image. '
      'Restore it, or unpack the archive again.'
    ) from error
  return image


def bits(image: Image.Image, content: bytes) -> int:
  """Bits a channel in the file, of which PIL makes 8 where it can."""
  if image.format == 'PNG':
    return content[24]
  return max(image.tag_v2.get(258, (1,))) if image.format == 'TIFF' else 8


def check_photo_as_taken(content: bytes, where: str) -> None:
  """Checks what only photos fresh from a camera or scanner have.

  Published sets are read as all others read them, whatever their tags say.

  Args:
    content: Of the photo's file.
    where: Its place, for the message.

  Raises:
    UserError: An EXIF tag turns it, so that nobody knows which way up its mask
      is; or it has more than 8 bits a channel, which would become dark.
  """
  try:
    image = Image.open(io.BytesIO(content))
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    depth = bits(image, content)
  except Exception:  # told by check_example
    return
  if orientation not in _UPRIGHT:
    raise UserError(
      f'{where} has an EXIF tag that turns it (orientation {orientation}), '
      f'which viewers obey and training does not. {_TURN_IT}'
    )
  if depth > 8:
    raise UserError(
      f'{where} has {depth} bits a channel; expected 8. Convert it, as '
      '"magick mogrify -depth 8" does, and stretch its brightness before where '
      'it is dark (-auto-level).'
    )


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
    UserError: The photo is damaged or partly transparent, the label has another
      size or holds a value that is neither a class nor 255.
  """
  image = open_image(example.image, example.image_where)
  size = image.height, image.width
  _check_photo(image, example)
  if example.label is None:
    counts = np.zeros(256, np.int64)
    counts[IGNORE_LABEL] = image.height * image.width
    return size, counts
  if example.label.shape != size:
    raise UserError(_sizes_differ(image, example))
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


def _check_photo(image: Image.Image, example: Example) -> None:
  if 'A' in image.getbands() or 'transparency' in image.info:
    alpha = image.convert('RGBA').getchannel('A')
    if alpha.getextrema()[0] < 255:
      raise UserError(
        f'{example.image_where} is transparent in places, and what lies behind '
        'is unknown. Save it without an alpha channel.'
      )
  # Training decodes with OpenCV, which knows fewer kinds of files than PIL.
  decoded = cv2.imdecode(
    np.frombuffer(example.image, np.uint8),
    cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
  )
  if decoded is None or decoded.shape[:2] != (image.height, image.width):
    raise UserError(
      f'{example.image_where} is {image.format} of a kind that OpenCV cannot '
      'decode. Save it as an ordinary JPEG or PNG.'
    )


def _sizes_differ(image: Image.Image, example: Example) -> str:
  height, width = example.label.shape
  message = (
    f'{example.label_where} is {height}x{width} (height x width), but its '
    f'photo {example.image_where} is {image.height}x{image.width}. They must '
    'be equal: '
  )
  if (image.width, image.height) == (height, width) and image.getexif().get(
    _EXIF_ORIENTATION, 1
  ) > 4:
    return f'{message}the photo has an EXIF tag that turns it. {_TURN_IT}'
  return f'{message}replace the one that was resized.'
