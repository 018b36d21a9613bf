"""Masks of a user's own making to class indices, by what the class list says.

Masks come as indices (grey or palette) or as colours (palette or RGB). Which of
the two a file means cannot be seen from the file alone; the class list decides:

* Without colours in the list, grey and palette masks hold indices.
* With colours, palette and RGB masks are read by these. Grey masks still hold
  indices, unless all colours are grey, as in masks of 0 and 255.

255 is ignored as an index, in grey masks and in palettes alike, unless the
palette gives it, and no other index, the colour of a class; so are the values
that the list names as ignored, and classes have the others. 65535 is the 255 of
a 16-bit mask.
"""

import functools

import numpy as np
from jaxtyping import Int32, UInt8, UInt16
from PIL import Image

from emanet_jax.data.reading.class_list import ClassList
from emanet_jax.data.reading.files import File
from emanet_jax.data.reading.images import bits, open_image
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError, listed

_MODES = ('1', 'L', 'I;16', 'I;16B', 'I', 'P', 'RGB')
_NO_CLASS = 256


def read_mask(file: File, classes: ClassList) -> UInt8[np.ndarray, 'h w']:
  """Reads a mask as uint8 [h, w] with classes 0..C-1 and 255.

  Args:
    file: PNG of any depth, BMP, or TIFF.
    classes: What its values or colours mean.

  Raises:
    UserError: The file is damaged, holds a value or colour of no class, or
      colours where the list has none.
  """
  content = file.read()
  image = open_image(content, file.where)
  depth = bits(image, content)
  image = _opaque(image, file.where)
  if image.mode not in _MODES or (depth == 16 and image.mode in ('L', 'RGB')):
    raise UserError(
      f'{file.where} holds {depth}-bit {image.mode} pixels; expected a '
      'palette, grey of up to 16 bits, or RGB of 8. Save it as such a PNG.'
    )
  if image.mode == 'RGB':
    return _by_color(_codes(np.array(image)), classes, file.where)
  if image.mode == 'P':
    return _by_palette(image, classes, file.where)
  levels, unit = _grey(image, depth)
  if classes.is_grey and levels.max() < 256:
    return _by_color(levels * 0x010101, classes, file.where)
  return _by_index(levels // unit, classes, file.where)


def _opaque(image: Image.Image, where: str) -> Image.Image:
  """Drops an alpha channel that says nothing."""
  if image.mode not in ('RGBA', 'LA'):
    return image
  if image.getchannel('A').getextrema()[0] < 255:
    raise UserError(
      f'{where} is transparent in places, which says nothing about classes. '
      'Save it without an alpha channel.'
    )
  return image.convert(image.mode[:-1])


def _grey(
  image: Image.Image, depth: int
) -> tuple[Int32[np.ndarray, 'h w'], int]:
  """Levels as 0..255 from black to white, and what one step of the file is."""
  levels = np.array(image).astype(np.int32)
  if image.mode == '1':
    return levels * 255, 255
  if image.mode == 'L':
    return levels, 255 // (2 ** min(depth, 8) - 1)
  levels[levels == 65535] = 255
  return levels, 1


def _by_index(
  indices: np.ndarray, classes: ClassList, where: str
) -> UInt8[np.ndarray, 'h w']:
  table = _label_of_value(classes)
  values = np.unique(indices)
  known = (values >= 0) & (values < len(table))
  bad = values[~known | (table[values * known] == _NO_CLASS)]
  if bad.size:
    ignored = ', '.join(map(str, sorted({*classes.ignored_values, 255})))
    raise UserError(
      f'{where} holds the value(s) {listed(bad.tolist())}, but {classes.where} '
      f'names {len(classes.names)} classes, {classes.values[0]}..'
      f'{classes.values[-1]} (ignored: {ignored}). Name all classes there, in '
      'the order of their values, and what is not scored as "ignore n"; or '
      'correct the mask.'
    )
  return table[indices].astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _label_of_value(classes: ClassList) -> UInt16[np.ndarray, '...']:
  """The label of each value of a mask of up to 16 bits."""
  table = np.full(1 << 16, _NO_CLASS, np.uint16)
  table[IGNORE_LABEL] = IGNORE_LABEL
  table[list(classes.values)] = range(len(classes.names))
  table[[v for v in classes.ignored_values if v < len(table)]] = IGNORE_LABEL
  return table


def _by_palette(
  image: Image.Image, classes: ClassList, where: str
) -> UInt8[np.ndarray, 'h w']:
  indices = np.array(image)
  if not classes.colors:
    return _by_index(indices, classes, where)
  colors = np.reshape(image.getpalette(), (-1, 3))
  palette = np.full(256, -1, np.int32)
  palette[: len(colors)] = _codes(colors)
  known = _codes(np.array(classes.colors))
  ignored = np.zeros_like(indices, bool)
  # Palettes are filled up with a colour that some class may have.
  last = palette[IGNORE_LABEL]
  if last not in known or np.count_nonzero(palette == last) > 1:
    ignored = indices == IGNORE_LABEL
    palette[IGNORE_LABEL] = known[0]  # any that is known
  label = _by_color(palette[indices], classes, where)
  label[ignored] = IGNORE_LABEL
  return label


def _codes(colors: np.ndarray) -> Int32[np.ndarray, '...']:
  """Each colour of [..., 3] as one number."""
  red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
  return (red << 16) + (green << 8) + blue


def _by_color(
  codes: Int32[np.ndarray, 'h w'], classes: ClassList, where: str
) -> UInt8[np.ndarray, 'h w']:
  label = _label_of_code(classes)[codes]
  if label.max() == _NO_CLASS:
    values, counts = np.unique(codes[label == _NO_CLASS], return_counts=True)
    unknown = [
      f'{_color(value)} on {count} pixels'
      for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    raise UserError(
      f'{where} is a mask of colours of which {classes.where} does not know '
      f'{listed(unknown)}. Add them there as lines "name r g b", or "ignore r '
      'g b". Colours between those of two classes come from smoothed edges or '
      'JPEG: export the masks without.'
    )
  return label.astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _label_of_code(classes: ClassList) -> UInt16[np.ndarray, '...']:
  """The label of each of 2**24 colours, and of -1, which is none."""
  table = np.full((1 << 24) + 1, _NO_CLASS, np.uint16)
  labels = range(len(classes.colors))
  table[_codes(np.reshape(classes.colors, (-1, 3)))] = labels
  table[_codes(np.reshape(classes.ignored, (-1, 3)))] = IGNORE_LABEL
  return table


def _color(code: int) -> str:
  if code < 0:
    return 'a palette index without colour'
  return str((code >> 16, code >> 8 & 255, code & 255))
