"""Masks of every kind to the classes that they mean."""

import io

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.reading.class_list import read_classes
from emanet_jax.data.reading.files import Files
from emanet_jax.data.reading.masks import read_mask
from emanet_jax.errors import UserError
from tests.data.rare_pictures import COLORS, packed

PLAIN = 'background\ncar\nlamp\n'
COLORED = 'background 0 0 0\ncar 250 120 7\nlamp 0 0 9\n'
GREY = 'background 0 0 0\ncar 255 255 255\nlamp 85 85 85\n'
IGNORING = COLORED + 'void 224 224 192\n'

# Of three classes and of two, with and without pixels that are ignored.
ALL = np.array([[0, 1, 2, 2], [1, 0, 255, 1]])
SOME = np.array([[0, 1, 2, 2], [1, 0, 0, 1]])
TWO = np.array([[0, 1, 1, 0], [1, 0, 0, 1]])


def saved(array, form='PNG', dtype=np.uint8, palette=None):
  image = Image.fromarray(np.asarray(array, dtype))
  if palette is not None:
    image.putpalette(np.uint8(palette).ravel().tolist())
  stream = io.BytesIO()
  image.save(stream, form)
  return stream.getvalue()


def rgb(labels, extra=(224, 224, 192)):
  return np.vstack([COLORS, [extra]])[np.where(labels == 255, 3, labels)]


def with_alpha(array, alpha=255):
  return np.concatenate([array, np.full((*array.shape[:2], 1), alpha)], axis=-1)


def palette(*colors):
  """With a colour of no class for 255, as VOC's for borders."""
  filled = np.zeros((256, 3), int)
  filled[: len(colors)], filled[255] = colors, (224, 224, 192)
  return filled


VOC = palette(*COLORS)
TURNED = palette(*COLORS[[2, 0, 1]])
TURN = np.append([1, 2, 0], [0] * 252 + [255])

# Class list, file content, and what it means.
KINDS = {
  'grey indices': (PLAIN, saved(ALL), ALL),
  'grey indices as BMP': (PLAIN, saved(ALL, 'BMP'), ALL),
  'grey indices as TIFF': (PLAIN, saved(ALL, 'TIFF'), ALL),
  'grey indices, coloured list': (COLORED, saved(ALL), ALL),
  '1 bit': ('no\nyes\n', packed(1, TWO), TWO),
  '1 bit as TIFF': ('no\nyes\n', packed(1, TWO, form='TIFF'), TWO),
  '1 bit as BMP': ('no\nyes\n', saved(TWO, 'BMP', bool), TWO),
  '2 bits': (PLAIN, packed(2, SOME), SOME),
  '2 bits as TIFF': (PLAIN, packed(2, SOME, form='TIFF'), SOME),
  '4 bits': (PLAIN, packed(4, SOME), SOME),
  '4 bits as TIFF': (PLAIN, packed(4, SOME, form='TIFF'), SOME),
  '16 bits': (PLAIN, saved(ALL, dtype=np.uint16), ALL),
  '16 bits as TIFF': (PLAIN, saved(ALL, 'TIFF', np.uint16), ALL),
  '16 bits, 65535': (
    PLAIN,
    saved(np.where(ALL == 255, 65535, ALL), dtype=np.uint16),
    ALL,
  ),
  'grey with opaque alpha': (PLAIN, saved(with_alpha(ALL[..., None])), ALL),
  'palette indices': (PLAIN, saved(ALL, palette=VOC), ALL),
  'palette indices as BMP': (PLAIN, saved(ALL, 'BMP', palette=VOC), ALL),
  'palette indices as TIFF': (PLAIN, saved(ALL, 'TIFF', palette=VOC), ALL),
  'palette of 2 bits': (PLAIN, packed(2, SOME, kind=3), SOME),
  'palette of 4 bits': (PLAIN, packed(4, SOME, kind=3), SOME),
  'palette indices, grey list': (
    GREY,
    saved([[0, 1, 2, 255]], palette=palette([0] * 3, [85] * 3, [255] * 3)),
    [[0, 2, 1, 255]],
  ),
  'palette colours': (
    COLORED,
    saved(TURN[ALL], palette=TURNED),
    ALL,
  ),
  'palette colours, a class at 255': (
    GREY,
    saved([[0, 1, 255]], palette=palette([0] * 3, [85] * 3)),
    [[0, 2, 255]],
  ),
  'palette of greys, white at 255': (
    GREY,
    saved([[0, 85, 255]], palette=np.repeat(range(256), 3)),
    [[0, 2, 1]],
  ),
  'palette filled up with the colour of a class': (
    COLORED,
    saved([[0, 1, 255]], palette=[*COLORS, *[[0, 0, 0]] * 253]),
    [[0, 1, 255]],
  ),
  'palette colours of 4 bits': (COLORED, packed(4, SOME, kind=3), SOME),
  'palette colours, border': (COLORED, saved(ALL, palette=VOC), ALL),
  'RGB': (COLORED, saved(rgb(SOME)), SOME),
  'RGB as BMP': (COLORED, saved(rgb(SOME), 'BMP'), SOME),
  'RGB as TIFF': (COLORED, saved(rgb(SOME), 'TIFF'), SOME),
  'RGB with opaque alpha': (COLORED, saved(with_alpha(rgb(SOME))), SOME),
  'RGB, ignored colour': (IGNORING, saved(rgb(ALL)), ALL),
  'RGB of greys': (GREY, saved(np.dstack([[[0, 255, 85]]] * 3)), [[0, 1, 2]]),
  'greys': (GREY, saved([[0, 255, 85]]), [[0, 1, 2]]),
  'greys of 1 bit': (GREY, packed(1, [[0, 1, 1]]), [[0, 1, 1]]),
  'greys of 2 bits': (GREY, packed(2, [[0, 3, 1]]), [[0, 1, 2]]),
  'greys of 4 bits': (GREY, packed(4, [[0, 15, 5]]), [[0, 1, 2]]),
  'greys of 16 bits': (
    GREY,
    saved([[0, 65535, 255, 85]], dtype=np.uint16),
    [[0, 1, 1, 2]],
  ),
  '0 is ignored': (
    'ignore 0\na\nb\nc\n',
    saved([[0, 1, 2, 3, 255]]),
    [[255, 0, 1, 2, 255]],
  ),
  'a value between is ignored, in palettes too': (
    'a\nb\nc\nVoid: 1\n',
    saved([[0, 1, 2, 3]], palette=VOC),
    [[0, 255, 1, 2]],
  ),
  'a value of 16 bits is ignored': (
    'a\nb\nignored,1000\n',
    saved([[0, 1, 1000, 65535]], dtype=np.uint16),
    [[0, 1, 255, 255]],
  ),
  'ignored grey': (
    'no 0 0 0\nyes 255 255 255\nignore 128 128 128\n',
    saved([[0, 255, 128]]),
    [[0, 1, 255]],
  ),
}


def file(tmp_path, name, content):
  if isinstance(content, str):
    content = content.encode()
  (tmp_path / name).write_bytes(content)
  return Files(tmp_path, {}, tmp_path).get(name)


@pytest.mark.parametrize('kind', KINDS)
def test_a_mask_means_its_classes(kind, tmp_path):
  text, content, want = KINDS[kind]
  classes = read_classes(file(tmp_path, 'classes.txt', text))
  got = read_mask(file(tmp_path, 'mask.png', content), classes)
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, want)


FAULTS = {
  'RGB without colours': (
    PLAIN,
    saved(rgb(SOME)),
    ['(0, 0, 9) on 2 pixels', 'classes.txt', '"name r g b"'],
  ),
  'an unknown colour': (
    COLORED,
    saved(rgb(ALL)),
    ['(224, 224, 192) on 1 pixels.', 'Add them', 'smoothed edges'],
  ),
  'an index without colour': (
    COLORED,
    packed(4, np.where(ALL == 255, 7, ALL), kind=3),
    ['a palette index without colour on 1 pixels'],
  ),
  'an unknown grey': (
    GREY,
    saved([[0, 254, 85, 254]]),
    ['(254, 254, 254) on 2 pixels'],
  ),
  'many colours': (
    COLORED,
    saved(np.arange(75).reshape(5, 5, 3)),
    ['(27, 28, 29) on 1 pixels and 15 more'],
  ),
  'a value too many': (
    PLAIN,
    saved(ALL + np.array([0, 0, 1, 1])),
    ['value(s) 3, but', 'names 3 classes, 0..2'],
  ),
  'a palette index too many': (
    PLAIN,
    saved([[0, 3, 254, 255]], palette=VOC),
    ['value(s) 3, 254, but', 'classes.txt', 'correct the mask'],
  ),
  'a large 16-bit value': (
    PLAIN,
    saved([[0, 256, 257, 65535]], dtype=np.uint16),
    ['value(s) 256, 257, but'],
  ),
  'a large 16-bit value, grey list': (
    GREY,
    saved([[0, 256, 1, 2]], dtype=np.uint16),
    ['value(s) 256, but'],
  ),
  'a negative value': (
    PLAIN,
    saved([[0, -1]], 'TIFF', np.int32),
    ['value(s) -1, but'],
  ),
  'transparent RGB': (
    COLORED,
    saved(with_alpha(rgb(SOME), 254)),
    ['mask.png', 'transparent', 'without an alpha'],
  ),
  'transparent grey': (
    PLAIN,
    saved(with_alpha(ALL[..., None], 0)),
    ['transparent'],
  ),
  # PIL keeps the upper 8 bits, which would make all of this class 0.
  '16 bits with alpha': (
    PLAIN,
    packed(16, SOME * 65536 + 65535, kind=4),
    ['16-bit', 'Save it as such a PNG'],
  ),
  'fractions': (PLAIN, saved(ALL, 'TIFF', np.float32), ['F pixels']),
  'no image': (PLAIN, b'<html>', ['mask.png', 'cannot be decoded']),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_mask_is_refused(fault, tmp_path):
  text, content, messages = FAULTS[fault]
  classes = read_classes(file(tmp_path, 'classes.txt', text))
  with pytest.raises(UserError) as error:
    read_mask(file(tmp_path, 'mask.png', content), classes)
  for message in messages:
    assert message in str(error.value)
