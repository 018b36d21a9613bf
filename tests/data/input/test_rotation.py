"""Turned crops against a slow twin."""

import numpy as np
import pytest

from emanet_jax.data.input import transforms


def turned(image, label, crop):
  """Each pixel of a turned crop looked up by itself, in float64.

  Also returns how far each label's point lies from a tie between two pixels.
  """
  height, width = label.shape
  h, w = max(1, int(height * crop.scale)), max(1, int(width * crop.scale))
  # Of the rows and columns that lie within the photo.
  inside_rows = [i for i in range(crop.size) if crop.top + i < h]
  inside_columns = [j for j in range(crop.size) if crop.left + j < w]
  if crop.flip:
    inside_columns = [crop.size - 1 - j for j in inside_columns]
  middle_row, middle_column = np.mean(inside_rows), np.mean(inside_columns)
  angle = np.deg2rad(crop.angle)
  outside = np.float64(transforms.PAD_COLOR)

  def pixel(row, column):
    inside = 0 <= row < height and 0 <= column < width
    return np.float64(image[row, column]) if inside else outside

  out_image = np.zeros((crop.size, crop.size, 3))
  out_label = np.full((crop.size, crop.size), 255)
  margin = np.zeros((crop.size, crop.size))
  for i in range(crop.size):
    for j in range(crop.size):
      # Counter-clockwise on the screen, where rows point down: what is seen to
      # the right of the centre has come up there from the right, below.
      right, up = j - middle_column, middle_row - i
      column = middle_column + right * np.cos(angle) + up * np.sin(angle)
      row = middle_row - (up * np.cos(angle) - right * np.sin(angle))
      if crop.flip:
        column = crop.size - 1 - column
      y = (row + crop.top) * (height - 1) / max(1, h - 1)
      x = (column + crop.left) * (width - 1) / max(1, w - 1)
      y0, x0 = int(np.floor(y)), int(np.floor(x))
      above = pixel(y0, x0) * (1 - x + x0) + pixel(y0, x0 + 1) * (x - x0)
      below = pixel(y0 + 1, x0) * (1 - x + x0) + pixel(y0 + 1, x0 + 1) * (
        x - x0
      )
      out_image[i, j] = above * (1 - y + y0) + below * (y - y0)
      row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
      if 0 <= row < height and 0 <= column < width:
        out_label[i, j] = label[row, column]
      margin[i, j] = min(
        abs(p + 0.5 - np.round(p + 0.5)) for p in (float(y), float(x))
      )
  return out_image, out_label, margin


@pytest.mark.parametrize('angle', [-170.0, -30.0, -0.5, 7.5, 90.0, 180.0])
@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('scale', [0.5, 1.0, 1.75])
def test_a_turned_crop_equals_the_slow_twin(scale, flip, angle):
  rng = np.random.default_rng(5)
  image = rng.integers(0, 256, (26, 33, 3), dtype=np.uint8)
  label = rng.integers(0, 21, (26, 33), dtype=np.uint8)
  crop = transforms.draw(
    rng, *label.shape, size=24, scales=(scale,), flip=False
  )
  crop = transforms.Crop(scale, crop.top, crop.left, flip, 24, angle)
  got_image, got_label = transforms.apply(image, label, crop)
  want_image, want_label, margin = turned(image, label, crop)
  np.testing.assert_allclose(got_image, want_image, rtol=0, atol=0.52)
  decided = margin > 1e-6
  assert decided.mean() > 0.4
  np.testing.assert_array_equal(got_label[decided], want_label[decided])
  assert (want_label == 255).any() or scale > 0.5


def test_turning_is_counter_clockwise_about_the_centre():
  image = np.zeros((9, 9, 3), np.uint8)
  image[4, 8] = 255  # on the right
  label = np.zeros((9, 9), np.uint8)
  label[4, 8], label[4, 4] = 1, 2
  crop = transforms.Crop(1.0, 0, 0, False, 9, 90.0)
  image, label = transforms.apply(image, label, crop)
  assert (image[0, 4] == 255).all()  # at the top
  assert label[0, 4] == 1
  assert label[4, 4] == 2


@pytest.mark.parametrize('flip', [False, True])
def test_a_small_photo_turns_about_its_own_centre(flip):
  image = np.full((9, 9, 3), 200, np.uint8)
  label = np.ones((9, 9), np.uint8)
  crops = [
    transforms.apply(image, label, transforms.Crop(1.0, 0, 0, flip, 40, angle))
    for angle in (0.0, 180.0)
  ]
  for plain, turned in zip(*crops, strict=True):
    np.testing.assert_array_equal(turned, plain)
  assert (crops[0][1] == 1).sum() == 81


def test_rotation_draws_angles_from_both_directions_after_the_rest():
  def crops(rotation):
    rng = np.random.default_rng(0)
    options = {'size': 20, 'scales': (1.0, 2.0), 'flip': True}
    first = transforms.draw(rng, 50, 60, **options, rotation=rotation)
    more = [
      transforms.draw(rng, 50, 60, **options, rotation=rotation).angle
      for _ in range(2000)
    ]
    return first, more, rng.random()

  turned_first, angles, _ = crops(10.0)
  plain_first, none, _ = crops(0.0)
  assert set(none) == {0.0}
  assert -10 <= min(angles) < -9.9
  assert 9.9 < max(angles) <= 10
  assert abs(np.mean(angles)) < 0.5
  angle = turned_first.angle
  assert turned_first == transforms.Crop(
    **{**vars(plain_first), 'angle': angle}
  )
