"""Preparation and prediction judge photos alike."""

import functools
import io

import cv2
import numpy as np
import pytest
from absl import logging
from PIL import Image

from emanet_jax.data.reading import checks, images
from emanet_jax.data.reading.example import Example
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.prediction import photos

SPEC = DatasetSpec('s', ('a', 'b'), ((0, 0, 0), (9, 9, 9)), {}, '', '', '', '')
SMOOTH = cv2.resize(
  np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), (50, 40)
)


def predicted(content, where):
  photo = photos.Photo('a', where, functools.partial(io.BytesIO, content))
  return photos.decode(photo)[0]


def prepared(content, where):
  label = np.zeros(SMOOTH.shape[:2], np.uint8)
  checks.check_example(SPEC, Example('a', content, label, where, 'mask'))
  return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[
    ..., ::-1
  ]


def stored(kind, image=SMOOTH, **options):
  content = io.BytesIO()
  Image.fromarray(image).save(content, kind, **options)
  return content.getvalue()


@pytest.mark.parametrize('suffix', images.SUFFIXES)
def test_what_the_decoder_reads_is_read(suffix):
  kind = Image.registered_extensions()[f'.{suffix}']
  content = stored(kind)
  expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
  for judge in (predicted, prepared):
    found = judge(content, f'a.{suffix}')
    assert np.abs(np.int32(found) - expected).max() <= 1
  exact = np.array_equal(expected, SMOOTH)
  assert exact <= (suffix not in images.LOSSY) | (suffix == 'jp2')
  assert images.split_suffix(f'A.{suffix.upper()}') == ('A', suffix)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'TIFF', 'AVIF'])
def test_of_several_frames_the_first_counts(kind):
  grey = Image.fromarray(SMOOTH).convert('L').convert('RGB')
  content = io.BytesIO()
  grey.save(
    content,
    kind,
    save_all=True,
    append_images=[Image.new('RGB', grey.size)],
    **({'lossless': True} if kind == 'WEBP' else {}),
  )
  for judge in (predicted, prepared):
    found = np.int32(judge(content.getvalue(), 'a'))
    assert np.abs(found - np.asarray(grey)).max() <= 12 * (kind == 'AVIF')


def deep(suffix, channels, depth):
  values = (
    np.arange(40 * 50 * channels).reshape(40, 50, channels) * 8 % 2**depth
  )
  options = [cv2.IMWRITE_AVIF_DEPTH, depth] if suffix == 'avif' else []
  done, content = cv2.imencode(f'.{suffix}', values.astype(np.uint16), options)
  assert done
  return content.tobytes()


@pytest.mark.parametrize(
  ('suffix', 'channels', 'depth', 'told'),
  [
    *((s, c, d, 16) for s in ('png', 'tif') for c in (1, 3) for d in (12, 16)),
    *((('pgm', 'ppm')[c // 3], c, 16, 16) for c in (1, 3)),
    *(('jp2', c, 16, 16) for c in (1, 3)),
    *(('avif', 3, d, d) for d in (10, 12)),
  ],
)
def test_more_than_8_bits_are_refused_by_both(suffix, channels, depth, told):
  """12 bits in 16 would be nearly black, and no file says which it is."""
  content = deep(suffix, channels, depth)
  for judge in (predicted, prepared):
    with pytest.raises(UserError, match=rf'^a has {told} bits a channel'):
      judge(content, 'a')


def test_headers_of_8_bits_are_understood():
  comment = stored('PPM').replace(b'P6\n', b'P6\n# 1 2 70000\n', 1)
  for content in (comment, b'P1\n2 1\n1 0\n', b'P5 2 1 255\n\0\1'):
    assert images.bits(images.open_image(content, 'a'), content) == 8


def test_the_same_photos_are_refused_by_both():
  clear = np.dstack([SMOOTH, np.full(SMOOTH.shape[:2], 254, np.uint8)])
  for content, message in (
    (stored('JPEG')[:-20], 'a cannot be decoded'),
    (stored('PNG', clear), 'a is transparent in places'),
    (stored('TGA'), 'a is TGA of a kind that OpenCV cannot decode'),
  ):
    for judge in (predicted, prepared):
      with pytest.raises(UserError, match=message):
        judge(content, 'a')


def test_images_that_are_passed_over_are_counted_and_named(monkeypatch):
  told = []
  monkeypatch.setattr(logging, 'warning', lambda *args: told.append(args))
  read = [f'a.{suffix}' for suffix in images.SUFFIXES]
  others = ['notes.txt', 'classes.csv', 'image', 'movie.mp4']
  images.tell_unread([*read, *others], 'D')
  assert not told
  unread = ['x/b.HEIC', 'c.dng', 'd.psd', 'e.svg', 'f.tga', 'g.jxl']
  images.tell_unread([*read, *others, *unread], 'D')
  ((message, *values),) = told
  assert (message % tuple(values)).startswith(
    'D: 6 image(s) are passed over, of kinds that cannot be read: '
    'c.dng, d.psd, e.svg, f.tga, g.jxl, x/b.HEIC. Convert'
  )
