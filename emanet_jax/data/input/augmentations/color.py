"""Photometric augmentation of a photo, with explicit randomness.

Meanings and ranges are those of torchvision's ColorJitter and GaussianBlur, in
a fixed order: brightness, contrast, saturation, hue, blur. All is computed in
float32 and rounded once.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from emanet_jax.errors import UserError

# Of the Gaussian, in pixels of the photo.
_BLUR_SIGMAS = (0.1, 2.0)

Image = UInt8[np.ndarray, 'h w 3']


@dataclasses.dataclass(frozen=True)
class Color:
  """The random draws of one photo; the defaults change nothing.

  Attributes:
    brightness: Factor on the colours, ≥ 0.
    contrast: Factor on their distance from the photo's mean grey, ≥ 0.
    saturation: Factor on their distance from their own grey, ≥ 0.
    hue: By which the hue is turned, in turns, within ±0.5.
    blur: Standard deviation of the Gaussian, pixels; 0 = none.
  """

  brightness: float = 1.0
  contrast: float = 1.0
  saturation: float = 1.0
  hue: float = 0.0
  blur: float = 0.0


def create(
  *,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
  blur: float = 0.0,
) -> Callable | None:
  """The augmentation of a configuration, checked; None where all is 0.

  Args:
    brightness: x ≥ 0: the factor is uniform in [max(0, 1 - x), 1 + x].
    contrast: Likewise.
    saturation: Likewise.
    hue: x in 0..0.5: the turn of the colour circle is uniform in [-x, x].
    blur: Probability of a Gaussian blur, whose sigma is uniform in 0.1..2
      pixels.

  Raises:
    UserError: A value out of range.
  """
  strengths = {
    'brightness': brightness,
    'contrast': contrast,
    'saturation': saturation,
    'hue': hue,
    'blur': blur,
  }
  for key, value in strengths.items():
    limit = {'hue': 0.5, 'blur': 1}.get(key, np.inf)
    if not 0 <= value <= limit:
      raise UserError(
        f'config.data.augmentations.color.{key} is {value}; it must be 0 (off) '
        f'to {limit}.'
      )
  if not any(strengths.values()):
    return None
  return lambda image, label, rng: (apply(image, draw(rng, **strengths)), label)


def draw(
  rng: np.random.Generator,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
  blur: float,
) -> Color:
  """Draws a change of colour; for what is 0, nothing is drawn or changed.

  Args:
    rng: The only source of randomness.
    brightness: x ≥ 0: the factor is uniform in [max(0, 1 - x), 1 + x].
    contrast: Likewise.
    saturation: Likewise.
    hue: x in 0..0.5: the turn is uniform in [-x, x].
    blur: Probability of a blur, whose sigma is uniform in 0.1..2 pixels.

  Returns:
    The draws.
  """
  blurred = blur and rng.random() < blur
  return Color(
    brightness=_factor(rng, brightness),
    contrast=_factor(rng, contrast),
    saturation=_factor(rng, saturation),
    hue=float(rng.uniform(-hue, hue)) if hue else 0.0,
    blur=float(rng.uniform(*_BLUR_SIGMAS)) if blurred else 0.0,
  )


def apply(image: Image, color: Color) -> Image:
  """Changes a photo's colours and sharpness.

  Args:
    image: uint8 RGB [h, w, 3]; never written to.
    color: What to change, see `draw`.

  Returns:
    uint8 RGB [h, w, 3]; the argument itself where nothing changes.
  """
  if color == Color():
    return image
  # In place: fresh pages for every step would cost more than the arithmetic.
  x = np.float32(image)
  x *= color.brightness / 255
  np.minimum(x, 1, out=x)
  _blend(x, _gray(x).mean(), color.contrast)
  _blend(x, _gray(x)[..., None], color.saturation)
  if color.hue:
    x = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
    # In degrees; from 360 on they start anew.
    cv2.add(x, (360 * (color.hue % 1), 0, 0, 0), dst=x)
    x = cv2.cvtColor(x, cv2.COLOR_HSV2RGB)
  if color.blur:
    x = cv2.GaussianBlur(x, (0, 0), color.blur)
  return cv2.convertScaleAbs(x, alpha=255)  # rounds


def _factor(rng: np.random.Generator, strength: float) -> float:
  if not strength:
    return 1.0
  return float(rng.uniform(max(0.0, 1 - strength), 1 + strength))


def _gray(x: np.ndarray) -> np.ndarray:
  return cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)  # 0.299 R + 0.587 G + 0.114 B


def _blend(
  x: np.ndarray, gray: np.ndarray | np.floating, factor: float
) -> None:
  """Multiplies the distance of x from gray by a factor, within 0..1."""
  if factor != 1:
    gray = (1 - factor) * gray
    x *= factor
    x += gray
    np.clip(x, 0, 1, out=x)
