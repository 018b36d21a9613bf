"""Reading published files, and everything that can be wrong with them.

All of it runs while a data set is prepared: training starts on records that
are known to be sound.
"""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec, Example, Item
from emanet_jax.errors import UserError


def check_items(spec: DatasetSpec, items: Sequence[Item]) -> None:
  """Checks that every listed file exists, before any is read.

  Args:
    spec: The data set, for the message.
    items: The examples of one split.

  Raises:
    UserError: A photo or label is missing, or an id is listed twice.
  """
  seen: set[str] = set()
  for item in items:
    if item.id in seen:
      raise UserError(
        f'{spec.name}: example {item.id!r} ({item.image}) is listed twice. '
        'Remove one of the two entries.'
      )
    seen.add(item.id)
    for kind, path in (('photo', item.image), ('label', item.label)):
      if not path.is_file():
        raise UserError(
          f'{spec.name}: example {item.id!r} has no {kind}: {path} does not '
          f'exist. Restore it, or unpack the archive again. {spec.download}'
        )


def read_file(path: pathlib.Path, spec: DatasetSpec) -> bytes:
  """Returns a file's content; raises UserError when it is empty."""
  content = path.read_bytes()
  if not content:
    raise UserError(
      f'{path} is empty (0 bytes): a copy or an unpacking was cut short. '
      f'Unpack {spec.name} again. {spec.download}'
    )
  return content


def open_image(
  content: bytes, path: str | pathlib.Path, spec: DatasetSpec
) -> Image.Image:
  """Decodes an image completely; raises UserError when it is damaged.

  PIL is used because OpenCV fills the missing part of a cut JPEG with grey
  and reports nothing.
  """
  try:
    image = Image.open(io.BytesIO(content))
    image.load()
  # PIL's decoders raise many types: OSError, SyntaxError, struct.error, ...
  except Exception as error:
    raise UserError(
      f'{path} cannot be decoded ({error}): expected a complete JPEG or PNG. '
      f'Unpack {spec.name} again. {spec.download}'
    ) from error
  return image


def read_index_png(
  path: pathlib.Path, spec: DatasetSpec
) -> UInt8[np.ndarray, 'h w']:
  """Reads a single-channel PNG (grey or palette) as class indices.

  Args:
    path: The label's file. A palette PNG yields its indices, not its colours.
    spec: The data set, for the message.

  Returns:
    uint8 [h, w], the values as stored.

  Raises:
    UserError: The file is damaged, or holds colours instead of indices.
  """
  image = open_image(read_file(path, spec), path, spec)
  if image.mode not in ('P', 'L'):
    raise UserError(
      f'{path} holds {image.mode} pixels; expected one 8-bit channel (grey or '
      'palette PNG) of class indices. Colour renderings of labels cannot be '
      'used: take the label files as published.'
    )
  return np.array(image, np.uint8)


def check_example(spec: DatasetSpec, example: Example) -> None:
  """Checks one example completely; what passes can be trained on.

  Args:
    spec: The data set.
    example: The example as it is going to be stored.

  Raises:
    UserError: The photo is damaged, the label has another size or holds a
      value that is neither a class nor 255.
  """
  image = open_image(example.image, example.image_path, spec)
  height, width = example.label.shape
  if (image.height, image.width) != (height, width):
    raise UserError(
      f'{example.label_path} is {height}x{width} (height x width), but its '
      f'photo {example.image_path} is {image.height}x{image.width}. They must '
      'be equal: replace the one that was resized.'
    )
  values = np.flatnonzero(np.bincount(example.label.ravel(), minlength=256))
  bad = values[(values >= spec.num_classes) & (values != IGNORE_LABEL)]
  if bad.size:
    raise UserError(
      f'{example.label_path} holds the value(s) {bad.tolist()}; {spec.name} '
      f'labels are 0..{spec.num_classes - 1} and {IGNORE_LABEL} (ignored). '
      'Check that it is the label file as published, in the right data set.'
    )
