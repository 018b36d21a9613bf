"""Draws label maps, predictions and attention maps beside their photos."""

import colorsys
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from matplotlib import colormaps

from emanet_jax.visualization.figures import Panel, Row, page, save_png

# What no class is drawn in: nearly white, so that it recedes.
VOID_COLOR = (236, 236, 236)
_WRONG_COLOR = (226, 38, 38)
_IGNORED_COLOR = (190, 190, 190)  # Lighter than any dimmed photo.
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def colorize(
  label: Integer[np.ndarray, 'h w'], palette: UInt8[np.ndarray, 'classes 3']
) -> UInt8[np.ndarray, 'h w 3']:
  """Gives every pixel its class's colour.

  Args:
    label: classes 0…C-1; anything else, 255 above all, is no class.
    palette: RGB of each class, 0…255.

  Returns:
    RGB; VOID_COLOR where there is no class.
  """
  no_class = len(palette)
  lookup = np.vstack([palette, np.array([VOID_COLOR], np.uint8)])
  known = (label >= 0) & (label < no_class)
  return lookup[np.where(known, label, no_class)]


def overlay(
  image: UInt8[np.ndarray, 'h w 3'],
  label: Integer[np.ndarray, 'h w'],
  palette: UInt8[np.ndarray, 'classes 3'],
  alpha: float = 0.55,
) -> UInt8[np.ndarray, 'h w 3']:
  """Lays the classes' colours over a photo.

  Args:
    image: RGB, 0…255.
    label: classes 0…C-1; elsewhere the photo stays as it is.
    palette: RGB of each class, 0…255.
    alpha: weight of the colour in [0, 1].

  Returns:
    RGB.
  """
  mixed = _blend(image, colorize(label, palette), alpha)
  known = (label >= 0) & (label < len(palette))
  return np.where(known[..., None], mixed, image)


def overlay_page(
  path: str | os.PathLike[str],
  examples: Sequence[Mapping[str, Any]],
  spec_classes: Sequence[str],
  palette: UInt8[np.ndarray, 'classes 3'],
  title: str = '',
) -> None:
  """Draws predictions beside the truth, one example a row.

  A row shows the photo, label and prediction over it, and the errors: wrong
  pixels red on a dimmed photo, ignored ones grey. Below stand the colours of
  the classes that occur.

  Args:
    path: the PNG file.
    examples: at least one, each with 'id' (str), 'image' (uint8 [h, w, 3]),
      'label' (uint8 [h, w], values ≥ C, such as 255, are ignored) and
      'prediction' (uint8 [h, w]); sizes may differ between examples.
    spec_classes: names of the C classes.
    palette: RGB of each class, 0…255.
    title: what the page shows; may be empty.

  Raises:
    ValueError: there are no examples.
  """
  rows, occurring = [], set()
  for example in examples:
    image, label = example['image'], example['label']
    prediction = example['prediction']
    overlays = [overlay(image, m, palette) for m in (label, prediction)]
    errors = _error_map(image, label, prediction, len(palette))
    note = f'pixel accuracy {_accuracy(label, prediction, len(palette))}'
    rows.append(
      Row(example['id'], note, [Panel(p) for p in (image, *overlays, errors)])
    )
    occurring |= {*np.unique(label).tolist(), *np.unique(prediction).tolist()}
  entries = legend(occurring, spec_classes, palette)
  entries += [
    ('wrong', tuple(np.divide(_WRONG_COLOR, 255).tolist())),
    ('ignored', tuple(np.divide(_IGNORED_COLOR, 255).tolist())),
  ]
  headers = ('photo', 'label', 'prediction', 'errors')
  save_png(path, page(rows, headers, 2.4, title, entries))


def attention_page(
  path: str | os.PathLike[str],
  examples: Sequence[Mapping[str, Any]],
  num_bases: int = 6,
) -> None:
  """Draws what the bases of expectation-maximization attention attend to.

  A row shows the photo, its pixels in the colour of their strongest basis, and
  where single bases are responsible, each from its own least to its own
  greatest value (printed), framed in its colour. `distinct_bases` says which
  bases are shown; they differ from photo to photo.

  Args:
    path: the PNG file.
    examples: at least one, each with 'id' (str), 'image' (uint8 [h, w, 3]) and
      'responsibilities' (float32 [h', w', K] in [0, 1]: Z of the last E step).
    num_bases: how many single bases, ≥ 1; fewer are drawn where K is less.

  Raises:
    ValueError: there are no examples.
  """
  rows = []
  for example in examples:
    image, z = example['image'], example['responsibilities']
    palette = basis_colors(z.shape[-1])
    strongest = _strongest(z, image.shape[:2])
    strongest = overlay(image, strongest, palette, alpha=0.7)
    panels = [Panel(image), Panel(strongest)]
    for basis in distinct_bases(z, num_bases):
      note = f'basis {basis}, max {z[..., basis].max():.2f}'
      frame = tuple((palette[basis] / 255).tolist())
      heat = heat_map(image, upsample(z[..., basis], image.shape[:2]))
      panels.append(Panel(heat, note, frame))
    rows.append(Row(example['id'], '', panels))
  columns = max((len(row.panels) for row in rows), default=0)
  headers = ['photo', 'strongest basis', 'responsibility of single bases']
  headers = (headers + columns * [''])[:columns]
  save_png(path, page(rows, headers, 1.9))


def distinct_bases(
  responsibilities: Float[np.ndarray, 'h w bases'], num_bases: int
) -> list[int]:
  """Picks bases whose maps vary most and repeat one another least.

  The first is the map of the largest spatial variance; each next one has the
  largest variance left once what the maps picked before explain linearly is
  taken out (the pivots of a QR decomposition of the centred maps). Bases that
  attend to the same place are thus shown once.

  Args:
    responsibilities: Z of one image, in [0, 1].
    num_bases: how many to pick, ≥ 1.

  Returns:
    min(num_bases, K) indices of bases, in the order picked.
  """
  maps = responsibilities.reshape(-1, responsibilities.shape[-1]).astype(float)
  maps = maps - maps.mean(axis=0)
  picked = []
  for _ in range(min(num_bases, maps.shape[1])):
    energy = np.square(maps).sum(axis=0)
    energy[picked] = -1.0  # Rounding leaves picked maps a little above 0.
    picked.append(int(energy.argmax()))
    direction = maps[:, picked[-1]]
    length = np.linalg.norm(direction)
    if length > 0:
      direction = direction / length
      maps = maps - np.outer(direction, direction @ maps)
  return picked


def legend(
  occurring: set[int], class_names: Sequence[str], palette: np.ndarray
) -> list[tuple[str, tuple[float, float, float]]]:
  """Names and RGB in [0, 1] of the classes that occur, in their order."""
  classes = enumerate(zip(class_names, palette, strict=True))
  swatches = [swatch for index, swatch in classes if index in occurring]
  return [(name, tuple(np.divide(rgb, 255).tolist())) for name, rgb in swatches]


def _blend(
  image: np.ndarray, color: np.ndarray, alpha: float | np.ndarray
) -> np.ndarray:
  return np.rint(image * (1 - alpha) + color * alpha).astype(np.uint8)


def _dimmed(image: np.ndarray) -> np.ndarray:
  """Takes the colour and most of the light out of a photo."""
  grey = image @ _LUMA * 0.45
  return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)


def _error_map(
  image: np.ndarray, label: np.ndarray, prediction: np.ndarray, classes: int
) -> np.ndarray:
  counts = label < classes
  wrong = counts & (label != prediction)
  result = _dimmed(image)
  result[wrong] = _blend(result[wrong], np.array(_WRONG_COLOR), 0.85)
  result[~counts] = _IGNORED_COLOR
  return result


def _accuracy(label: np.ndarray, prediction: np.ndarray, classes: int) -> str:
  counts = label < classes
  if not counts.any():
    return '-'
  return f'{100 * np.mean(label[counts] == prediction[counts]):.2f} %'


def basis_colors(count: int) -> np.ndarray:
  """Colours that differ most between neighbours; uint8 [count, 3]."""
  golden_ratio = 0.618034  # Its multiples never bunch up on the hue circle.
  hues = np.arange(count) * golden_ratio % 1
  shades = [(0.9, 1.0), (0.65, 0.85), (0.95, 0.7)]
  rgb = [colorsys.hsv_to_rgb(h, *shades[i % 3]) for i, h in enumerate(hues)]
  return np.rint(255 * np.array(rgb)).astype(np.uint8)


def heat_map(image: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Lays values over a dimmed photo: the larger, the brighter and denser."""
  span = np.ptp(values)
  scaled = (values - values.min()) / span if span > 0 else np.zeros_like(values)
  heat = 255 * colormaps['inferno'](scaled)[..., :3]
  return _blend(_dimmed(image), heat, 0.25 + 0.65 * scaled[..., None])


def _strongest(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Argmax over K of [h, w, K] upsampled; one map at a time to save memory."""
  best, index = np.full(size, -np.inf), np.zeros(size, np.int32)
  for basis in range(maps.shape[-1]):
    values = upsample(maps[..., basis], size)
    index[values > best] = basis
    np.maximum(best, values, out=best)
  return index


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes [h, w] bilinearly; corners meet, as in the network's grid."""
  for axis, target in enumerate(size):
    last = values.shape[axis] - 1
    source = np.linspace(0, last, target)
    lower = source.astype(int)
    weight = np.expand_dims(source - lower, 1 - axis)
    low = np.take(values, lower, axis)
    high = np.take(values, np.minimum(lower + 1, last), axis)
    values = low + (high - low) * weight
  return values
