"""The transform against the authors' figures and a slow twin."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.input import transforms

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden'
MEAN = np.float64([0.485, 0.456, 0.406])
STD = np.float64([0.229, 0.224, 0.225])


@pytest.mark.parametrize('name', ['transform_up', 'transform_pad'])
def test_equals_the_authors_transform(name):
  golden = np.load(GOLDEN / f'{name}.npz')
  crop = transforms.Crop(
    scale=float(golden['ratio']),
    top=int(golden['top']),
    left=int(golden['left']),
    flip=bool(golden['flip']),
    size=int(golden['size']),
  )
  image, label = transforms.apply(golden['image'], golden['label'], crop)
  expected = (golden['out_image'].transpose(1, 2, 0) * STD + MEAN) * 255
  np.testing.assert_array_equal(label, golden['out_label'])
  # Half a grey level is what rounding to uint8 costs.
  np.testing.assert_allclose(image, expected, rtol=0, atol=0.51)


def resize_pad_crop_flip(image, label, crop):
  """The authors' steps one after the other, whole image, float64 loops."""
  height, width = label.shape
  h, w = max(1, int(height * crop.scale)), max(1, int(width * crop.scale))
  full = max(h, crop.size), max(w, crop.size)
  out_image = np.tile(np.float64(transforms.PAD_COLOR), (*full, 1))
  out_label = np.full(full, 255)
  for i in range(h):
    for j in range(w):
      y = i * (height - 1) / max(1, h - 1)
      x = j * (width - 1) / max(1, w - 1)
      y0, x0 = int(y), int(x)
      y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
      above = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
      below = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
      out_image[i, j] = above * (1 - y + y0) + below * (y - y0)
      row = min(int(i / crop.scale), height - 1)
      out_label[i, j] = label[row, min(int(j / crop.scale), width - 1)]
  rows = slice(crop.top, crop.top + crop.size)
  columns = slice(crop.left, crop.left + crop.size)
  out_image, out_label = out_image[rows, columns], out_label[rows, columns]
  if crop.flip:
    out_image, out_label = out_image[:, ::-1], out_label[:, ::-1]
  return out_image, out_label


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('scale', [0.5, 0.75, 1.0, 1.25, 1.75, 2.0])
@pytest.mark.parametrize('shape', [(20, 33), (33, 20), (24, 24), (1, 40)])
def test_equals_the_slow_twin(shape, scale, flip):
  rng = np.random.default_rng(7)
  image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
  label = rng.integers(0, 21, shape, dtype=np.uint8)
  for _ in range(3):
    crop = transforms.draw(rng, *shape, size=24, scales=(scale,), flip=False)
    crop = transforms.Crop(scale, crop.top, crop.left, flip, 24)
    got_image, got_label = transforms.apply(image, label, crop)
    want_image, want_label = resize_pad_crop_flip(image, label, crop)
    np.testing.assert_array_equal(got_label, want_label)
    np.testing.assert_allclose(got_image, want_image, rtol=0, atol=0.52)


def test_draw_covers_all_places_scales_and_both_sides():
  rng = np.random.default_rng(0)
  crops = [
    transforms.draw(rng, 10, 12, size=8, scales=(0.5, 1.0), flip=True)
    for _ in range(2000)
  ]
  big = [c for c in crops if c.scale == 1.0]
  small = [c for c in crops if c.scale == 0.5]
  assert {(c.top, c.left) for c in big} == {
    (i, j) for i in range(3) for j in range(5)
  }
  assert {(c.top, c.left) for c in small} == {(0, 0)}
  assert 900 < len(big) < 1100
  assert 900 < sum(c.flip for c in crops) < 1100


def test_draw_depends_on_the_generator_only():
  def draws(seed):
    rng = np.random.default_rng(seed)
    return [
      transforms.draw(rng, 50, 60, size=20, scales=(1.0, 2.0), flip=True)
      for _ in range(20)
    ]

  assert draws(1) == draws(1)
  assert draws(1) != draws(2)


def test_no_flip_where_it_is_switched_off():
  rng = np.random.default_rng(0)
  assert not any(
    transforms.draw(rng, 9, 9, size=5, scales=(1.0,), flip=False).flip
    for _ in range(50)
  )


def test_apply_leaves_its_arguments_alone():
  image = np.full((9, 9, 3), 7, np.uint8)
  label = np.full((9, 9), 3, np.uint8)
  transforms.apply(image, label, transforms.Crop(2.0, 1, 2, True, 9))
  assert (image == 7).all()
  assert (label == 3).all()


def file_of(image, *arguments, **options):
  file = io.BytesIO()
  image.save(file, *arguments, **options)
  return file.getvalue()


@pytest.mark.parametrize(
  ('mode', 'kind', 'options'),
  [
    ('RGB', 'JPEG', {'quality': 90}),
    ('RGB', 'JPEG', {'quality': 90, 'subsampling': 0, 'progressive': True}),
    ('L', 'JPEG', {'quality': 90}),
    ('CMYK', 'JPEG', {'quality': 90}),
    ('RGB', 'PNG', {}),
    ('P', 'PNG', {}),
    ('L', 'PNG', {}),
    ('RGBA', 'PNG', {}),
  ],
)
def test_photos_are_decoded_as_pillow_does(mode, kind, options):
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
  photo = coarse.resize((80, 60)).convert(mode)
  label = rng.integers(0, 256, (60, 80), dtype=np.uint8)
  data = file_of(photo, kind, **options)
  record = {
    'id': b'one',
    'image': data,
    'label': file_of(Image.fromarray(label), 'PNG'),
  }
  got = transforms.decode(record)
  want = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
  # CMYK is turned into RGB by each library's own rounding.
  atol = 1 if mode == 'CMYK' else 0
  np.testing.assert_allclose(
    np.int32(got['image']), np.int32(want), rtol=0, atol=atol
  )
  np.testing.assert_array_equal(got['label'], label)
  assert got['id'] == 'one'


def test_a_photo_is_not_turned_by_its_exif_note():
  photo = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
  exif = Image.Exif()
  exif[0x0112] = 6  # to be shown turned by a quarter
  record = {
    'id': b'one',
    'image': file_of(photo, 'JPEG', exif=exif),
    'label': file_of(Image.fromarray(np.zeros((4, 5), np.uint8)), 'PNG'),
  }
  assert transforms.decode(record)['image'].shape == (4, 5, 3)
