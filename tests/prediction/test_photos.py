"""Photos of all kinds: found, turned upright, decoded or refused."""

import functools
import io
import os
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from emanet_jax.errors import UserError
from emanet_jax.prediction import photos

NOWHERE = pathlib.Path('nowhere')
SIZE = (20, 30)


def smooth(seed=0, size=SIZE):
  coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
  return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def photo(path, **options):
  return photos.Photo(
    'name', str(path), functools.partial(path.open, 'rb'), **options
  )


def save(path, image, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path, **options)
  return path


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'tif', 'webp'])
def test_lossless_kinds_keep_every_pixel(tmp_path, suffix):
  path = save(tmp_path / f'a.{suffix}', smooth(), lossless=True)
  image, orientation = photos.decode(photo(path))
  np.testing.assert_array_equal(image, smooth())
  assert (photos.measure(photo(path)), orientation) == (SIZE, 1)


@pytest.mark.parametrize('subsampling', [0, 2])
def test_a_jpeg_is_decoded_as_for_training(tmp_path, subsampling):
  path = save(tmp_path / 'a.jpg', smooth(), subsampling=subsampling)
  found, _ = photos.decode(photo(path))
  np.testing.assert_array_equal(found, cv2.imread(str(path))[..., ::-1])


def test_other_colours_become_rgb(tmp_path):
  image = smooth()
  grey = image[..., 0]
  three = np.repeat(grey[..., None], 3, axis=-1)
  rgb = Image.fromarray(image)
  cases = {
    'grey.png': (Image.fromarray(grey), three),
    'opaque.png': (rgb.convert('RGBA'), image),
    'grey_opaque.png': (Image.fromarray(grey).convert('LA'), three),
    'palette.png': (
      rgb.quantize(9),
      np.asarray(rgb.quantize(9).convert('RGB')),
    ),
    'bits.png': (
      Image.fromarray(grey > 99),
      np.where(three > 99, 255, 0).astype(np.uint8),
    ),
  }
  for name, (stored, expected) in cases.items():
    stored.save(tmp_path / name)
    found, _ = photos.decode(photo(tmp_path / name))
    np.testing.assert_array_equal(found, expected, err_msg=name)
    assert found.dtype == np.uint8


def test_cmyk(tmp_path):
  ink = np.stack([*np.moveaxis(smooth(), -1, 0), smooth(1)[..., 0] // 3], -1)
  path = tmp_path / 'a.tif'
  Image.fromarray(ink, 'CMYK').save(path)
  found, _ = photos.decode(photo(path))
  colour, black = ink[..., :3] / 255, ink[..., 3:] / 255
  expected = 255 * (1 - colour) * (1 - black)
  assert np.abs(found - expected).max() < 3


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photo_is_turned_as_viewers_do(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  stored = smooth()
  path = save(tmp_path / 'a.png', stored, exif=exif)
  shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
  found, turned_by = photos.decode(photo(path))
  np.testing.assert_array_equal(found, shown)
  assert photos.measure(photo(path)) == shown.shape[:2]
  np.testing.assert_array_equal(photos.as_stored(found, turned_by), stored)
  as_is = photo(path, turns=False)
  np.testing.assert_array_equal(photos.decode(as_is)[0], stored)
  assert photos.measure(as_is) == SIZE


def test_a_turned_tiff_lies_as_libraries_read_it(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  path = save(tmp_path / 'a.tif', smooth(), exif=exif)
  found, orientation = photos.decode(photo(path))
  np.testing.assert_array_equal(found, np.asarray(Image.open(path)))
  assert found.shape[:2] == photos.measure(photo(path)) == SIZE[::-1]
  assert orientation == 1


def test_bad_photos_are_refused_by_name(tmp_path):
  whole = save(tmp_path / 'a.jpg', smooth(size=(60, 80))).read_bytes()
  clear = np.dstack([smooth(), np.full(SIZE, 255, np.uint8)])
  clear[3, 4, 3] = 254
  contents = {
    'text.jpg': (b'hello', 'is no photo'),
    'empty.png': (b'', 'is no photo'),
    'cut.jpg': (whole[:-20], 'cannot be decoded'),
    'clear.png': (encoded(clear), 'is transparent in places.*alpha channel'),
    'float.tif': (encoded(np.float32(clear[..., 0])), 'has 32 bits a channel'),
  }
  for name, (content, message) in contents.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name} {message}'):
      look_at(photo(tmp_path / name))
  with pytest.raises(UserError, match=r'gone\.jpg cannot be read'):
    photos.measure(photo(tmp_path / 'gone.jpg'))


def look_at(one):
  photos.measure(one)
  photos.decode(one)


def encoded(image):
  content = io.BytesIO()
  Image.fromarray(image).save(content, 'TIFF' if image.ndim == 2 else 'PNG')
  return content.getvalue()


@pytest.fixture
def folder(tmp_path):
  names = ['b.JPG', 'sub/a.png', 'sub/deep/c.v2.webp', '.hidden.png', 'x.txt']
  for name in [*names, '.trash/d.png', 'results/e.png']:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  return tmp_path


@pytest.mark.parametrize(
  ('given', 'names'),
  [
    ('', ['b', 'sub/a', 'sub/deep/c.v2']),
    ('sub', ['a', 'deep/c.v2']),
    ('b.JPG', ['b']),
    ('x.txt', ['x']),
    ('*', ['b']),
    ('sub/*.png', ['a']),
    ('s*/**/*', ['sub/a', 'sub/deep/c.v2']),
  ],
)
def test_what_a_path_means(folder, given, names):
  found = photos.find_photos(str(folder / given), folder / 'results')
  assert [p.name for p in found] == names
  for one in found:
    assert pathlib.Path(one.where).is_file()
    with one.open() as file:
      assert file.read() == b''


def test_no_photos_are_explained(folder, monkeypatch):
  with pytest.raises(UserError, match='gs://b/x is no path of this machine'):
    photos.find_photos('gs://b/x', NOWHERE)
  with pytest.raises(UserError, match='nowhere does not exist; give a photo'):
    photos.find_photos(str(folder / 'nowhere'), NOWHERE)
  for given in ('results', '*.gif', '.trash/none*'):
    (folder / 'results' / 'e.png').unlink(missing_ok=True)
    with pytest.raises(UserError, match=r'holds no photo; looked for .*jpeg'):
      photos.find_photos(str(folder / given), NOWHERE)

  def refuse(path):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(PermissionError, match='Permission denied'):
    photos.find_photos(str(folder), NOWHERE)


def test_names_that_clash_are_told(folder):
  (folder / 'sub' / 'a.jpeg').write_bytes(b'')
  with pytest.raises(UserError, match='suffix alone') as error:
    photos.find_photos(str(folder), NOWHERE)
  assert f'{folder}/sub/a.jpeg and {folder}/sub/a.png\n' in str(error.value)
  assert 'b.JPG' not in str(error.value)
