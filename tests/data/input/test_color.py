"""Photometric augmentation against formulas and Python's own colours."""

import colorsys

import numpy as np
import pytest

from emanet_jax.data.input.augmentations import color
from emanet_jax.data.input.augmentations.color import Color

GRAY = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def photo():
  """Every corner of the colour cube and random colours between."""
  rng = np.random.default_rng(0)
  corners = np.stack(np.meshgrid(*[[0, 255]] * 3), -1).reshape(1, 8, 3)
  image = rng.integers(0, 256, (23, 8, 3))
  return np.concatenate([corners, image]).astype(np.uint8)


def blended(x, gray, factor):
  return np.clip(factor * x + (1 - factor) * gray, 0, 255)


def turned(x, turns):
  out = np.zeros_like(x)
  for place in np.ndindex(x.shape[:2]):
    hue, saturation, value = colorsys.rgb_to_hsv(*x[place] / 255)
    out[place] = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
  return 255 * out


def blurred(x, sigma):
  """Each pixel a weighted mean of all, the edge pixel's neighbours mirrored."""
  for axis in (0, 1):
    length = x.shape[axis]
    weights = np.zeros((length, length))
    for i in range(length):
      for offset in range(-40, 41):
        source = (i + offset) % (2 * length - 2)
        source = min(source, 2 * length - 2 - source)
        weights[i, source] += np.exp(-(offset**2) / (2 * sigma**2))
    weights /= weights.sum(axis=1, keepdims=True)
    x = np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)
  return x


def twin(image, change):
  """The same in float64, step by step."""
  x = np.clip(np.float64(image) * change.brightness, 0, 255)
  x = blended(x, (x @ GRAY).mean(), change.contrast)
  x = blended(x, (x @ GRAY)[..., None], change.saturation)
  if change.hue:
    x = turned(x, change.hue)
  return blurred(x, change.blur) if change.blur else x


@pytest.mark.parametrize(
  'change',
  [
    *(Color(brightness=x) for x in (0.0, 0.4, 1.7)),
    *(Color(contrast=x) for x in (0.0, 0.5, 1.9)),
    *(Color(saturation=x) for x in (0.0, 0.3, 2.0)),
    *(Color(hue=x) for x in (-0.5, -0.2, -0.001, 0.1, 0.49)),
    *(Color(blur=x) for x in (0.1, 0.7, 2.0)),
    Color(1.2, 0.7, 1.5, -0.3, 1.1),
    Color(0.8, 1.6, 0.6, 0.25, 0.4),
  ],
)
def test_equals_the_formulas(photo, change):
  got = color.apply(photo, change)
  assert got.dtype == np.uint8
  # Half a grey level is what rounding costs.
  np.testing.assert_allclose(got, twin(photo, change), rtol=0, atol=0.55)
  assert (got != photo).any() == (change != Color(blur=0.1))


def test_no_change_is_the_photo_itself(photo):
  assert color.apply(photo, Color()) is photo


def test_a_photo_is_never_written_to(photo):
  before = photo.copy()
  color.apply(photo, Color(1.2, 0.7, 1.5, -0.3, 1.1))
  np.testing.assert_array_equal(photo, before)


OFF = dict.fromkeys(
  ('brightness', 'contrast', 'saturation', 'hue', 'blur'), 0.0
)


def draws(count=4000, **strengths):
  rng = np.random.default_rng(0)
  return [color.draw(rng, **{**OFF, **strengths}) for _ in range(count)]


def test_off_draws_nothing():
  rng = np.random.default_rng(0)
  assert color.draw(rng, **OFF) == Color()
  assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
  ('key', 'strength', 'low', 'high'),
  [
    ('brightness', 0.4, 0.6, 1.4),
    ('contrast', 2.0, 0.0, 3.0),
    ('saturation', 1.0, 0.0, 2.0),
    ('hue', 0.2, -0.2, 0.2),
    ('blur', 1.0, 0.1, 2.0),
  ],
)
def test_draws_are_uniform_in_their_range(key, strength, low, high):
  values = np.sort([getattr(c, key) for c in draws(**{key: strength})])
  assert low <= values[0]
  assert values[-1] <= high
  even = np.linspace(low, high, len(values))
  assert np.abs(values - even).max() < 0.04 * (high - low)
  # The rest is left alone.
  assert all(
    {**vars(c), key: None} == {**vars(Color()), key: None}
    for c in draws(50, **{key: strength})
  )


def test_blur_happens_with_its_probability():
  share = np.mean([c.blur > 0 for c in draws(blur=0.3)])
  assert abs(share - 0.3) < 0.03
