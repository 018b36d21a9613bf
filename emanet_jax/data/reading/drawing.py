"""Outlines, textures and light: what generated images are painted with.

Grids hold a float32 value a pixel. Distances are in pixels, signed: negative
inside an outline.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float32

Grid = Float32[np.ndarray, 'h w']


def disk(u: Grid, v: Grid, radius: float) -> Grid:
  """Signed distance to a circle of the radius around the origin."""
  return np.hypot(u, v) - radius


def ring(u: Grid, v: Grid, radius: float) -> Grid:
  """Signed distance to a ring of the outer radius."""
  return np.abs(np.hypot(u, v) - 0.73 * radius) - 0.27 * radius


def polygon(corners: Sequence[tuple[float, float]]) -> Callable:
  """Makes the signed distance to a polygon.

  Args:
    corners: In order, for a polygon that fits the unit circle or so.

  Returns:
    A function (u, v, radius) -> distance, as `disk` and `ring` are.
  """

  def distance(u: Grid, v: Grid, radius: float) -> Grid:
    points = np.float32(corners) * np.float32(radius)
    nearest = np.full(u.shape, np.inf, np.float32)
    inside = np.zeros(u.shape, bool)
    for (ax, ay), (bx, by) in zip(
      points, np.roll(points, 1, axis=0), strict=True
    ):
      ex, ey, pu, pv = bx - ax, by - ay, u - ax, v - ay
      along = np.clip((pu * ex + pv * ey) / (ex * ex + ey * ey), 0, 1)
      square = (pu - ex * along) ** 2 + (pv - ey * along) ** 2
      nearest = np.minimum(nearest, square)
      crosses = (ay > v) != (by > v)
      inside ^= crosses & (pu * ey < ex * pv if ey > 0 else pu * ey > ex * pv)
    return np.sqrt(nearest) * np.where(inside, -1, 1).astype(np.float32)

  return distance


def on_circle(radii: Sequence[float]) -> list[tuple[float, float]]:
  """Returns corners at equal angles, the radii in turn."""
  angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
  return [
    (r * np.cos(a), r * np.sin(a)) for r, a in zip(radii, angles, strict=True)
  ]


def _speckle(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  cells = rng.uniform(0, 1, (4, 14, 14)).astype(np.float32)
  size = u.shape[::-1]
  # Octaves of smooth noise, each finer and fainter.
  return (
    sum(
      cv2.resize(cells[i, : 3 + 3 * i, : 3 + 3 * i], size, interpolation=2)
      / (1 + i)
      for i in range(4)
    )
    / 2.1
  )


def _stripes(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  return 0.5 + 0.5 * np.clip(3 * np.sin(u * 0.9), -1, 1)


def _grain(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  bent = u + 5 * np.sin(v * 0.12 + rng.uniform(0, 6)) + 0.25 * v
  return 0.5 + 0.35 * np.sin(bent * 0.75) + 0.15 * np.sin(bent * 1.9)


def _dots(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  return np.clip(2 * (np.cos(u * 0.8) + np.cos(v * 0.8)) - 1.2, 0, 1)


def _checks(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  return np.clip(0.5 + 4 * np.sin(u * 0.6) * np.sin(v * 0.6), 0, 1)


def _plain(u: Grid, v: Grid, rng: np.random.Generator) -> Grid:
  return np.full_like(u, 0.6) + 0.05 * np.sin(u * 0.1)


# The order is part of the Shapes data set.
TEXTURES = (_plain, _stripes, _speckle, _grain, _checks, _dots)


def texture(
  kind: int, rng: np.random.Generator, u: Grid, v: Grid, coarse: float = 1.0
) -> Grid:
  """Returns a texture, 0..1 or nearly, at a random scale."""
  scale = 1 / (coarse * rng.uniform(0.8, 1.6))
  return TEXTURES[kind](u * scale, v * scale, rng)


def color(
  rng: np.random.Generator, hue: float, saturation: tuple[float, float]
) -> Float32[np.ndarray, '3']:
  """Returns an RGB colour, 0..1, of about the hue (in turns)."""
  hsv = np.float32(
    [hue % 1 * 360, rng.uniform(*saturation), rng.uniform(0.45, 0.95)]
  )
  return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0]


def paint(
  color: Float32[np.ndarray, '3'], texture: Grid
) -> Float32[np.ndarray, 'h w 3']:
  """Returns a surface, RGB 0..1, whose brightness follows the texture."""
  return color * (0.45 + 0.65 * texture)[..., None]


def cover(distance: Grid, softness: float) -> Grid:
  """Share of a pixel, 0..1, on the inner side of an outline."""
  return np.clip(0.5 - distance / softness, 0, 1)


def rotate(u: Grid, v: Grid, angle: float) -> tuple[Grid, Grid]:
  """Returns the coordinates in axes turned by the angle (radians)."""
  c, s = math.cos(angle), math.sin(angle)
  return u * c + v * s, v * c - u * s


def slope(x: Grid, y: Grid, angle: float) -> Grid:
  """Rises from about -1 to 1 across the image, towards the angle."""
  h, w = x.shape
  c, s = math.cos(angle), math.sin(angle)
  return ((x / w - 0.5) * c + (y / h - 0.5) * s) * 2
