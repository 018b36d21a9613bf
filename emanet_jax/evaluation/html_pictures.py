"""A photo, and what is laid over it, as text for an HTML page.

A photo is in the page once. Whatever is shown over it (classes, errors,
attention) is a small PNG of few colours, laid over it by the browser.
"""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from matplotlib import colormaps
from PIL import Image

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.visualization import overlays

_PHOTO_SIDE, _HEAT_SIDE = 480, 200  # Pixels of the longer side, at most.
_MOST_COLORS = 256  # Of a PNG with a palette.
_HEAT_LEVELS = 32
_NUM_BASES = 6
_CLEAR, _WRONG, _IGNORED = (
  (0, 0, 0, 0),
  (226, 38, 38, 220),
  (190, 190, 190, 255),
)


@dataclasses.dataclass(frozen=True)
class Layer:
  """Something laid over a photo.

  Attributes:
    name: What it is.
    source: A transparent PNG, as a data URI.
    kind: 'classes', which the reader may fade, 'errors' or 'attention', which
      stand over a dimmed photo.
  """

  name: str
  source: str
  kind: str


@dataclasses.dataclass(frozen=True)
class Figure:
  """A photo and what is laid over it.

  Attributes:
    name: The image's, in its data set.
    scores: mIoU and accuracy in [0, 1], or nothing.
    size: Width and height, pixels, that give the shape.
    photo: A JPEG, as a data URI.
    layers: Each drawn over the photo.
    legend: Names and RGB, 0…255, of the classes in it.
  """

  name: str
  scores: Mapping[str, float]
  size: tuple[int, int]
  photo: str
  layers: Sequence[Layer]
  legend: Sequence[tuple[str, tuple[int, int, int]]]


def create_figure(picture: Mapping[str, Any], spec: DatasetSpec) -> Figure:
  """Draws one image of an evaluation.

  Args:
    picture: As `report.Evaluation` has them: `id`, `image` (uint8 [h, w, 3]),
      `label` and `prediction` (uint8 [h, w], values ≥ C are ignored);
      `responsibilities` (float32 [h', w', K]), `miou` and `accuracy` if known.
    spec: Of the data set.
  """
  label, prediction = picture['label'], picture['prediction']
  photo = Image.fromarray(picture['image'])
  photo.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE), Image.Resampling.LANCZOS)
  known = label < spec.num_classes
  errors = np.where(known, label != prediction, 2).astype(np.uint8)
  colors = [(*color, 255) for color in spec.palette]
  layers = [
    _layer(name, 'classes', values, [*colors, _CLEAR], photo.size)
    for name, values in (('label', label), ('prediction', prediction))
  ]
  palette = [_CLEAR, _WRONG, _IGNORED]
  layers.append(_layer('errors', 'errors', errors, palette, photo.size))
  if 'responsibilities' in picture:
    layers += _attention(picture['responsibilities'], photo.size)
  present = {*np.unique(label).tolist(), *np.unique(prediction).tolist()}
  return Figure(
    name=str(picture['id']),
    scores={
      name: picture[key]
      for name, key in (('mIoU', 'miou'), ('accuracy', 'accuracy'))
      if key in picture
    },
    size=photo.size,
    photo=_data_uri(photo, 'JPEG', quality=85),
    layers=layers,
    legend=[
      (spec.classes[i], spec.palette[i])
      for i in sorted(present)
      if i < spec.num_classes
    ],
  )


def _attention(
  z: Float[np.ndarray, 'h w bases'], size: tuple[int, int]
) -> list[Layer]:
  """Each pixel's strongest basis, and single bases from least to greatest."""
  scale = min(1, _HEAT_SIDE / max(size))
  width, height = size = tuple(max(1, round(n * scale)) for n in size)
  maps = [
    overlays.upsample(z[..., k], (height, width)) for k in range(z.shape[-1])
  ]
  colors = np.full((_MOST_COLORS, 4), round(0.6 * 255))
  colors[:, :3] = overlays.basis_colors(_MOST_COLORS)
  strongest = (np.argmax(maps, axis=0) % _MOST_COLORS).astype(np.uint8)
  layers = [_layer('strongest basis', 'attention', strongest, colors, size)]
  levels = np.linspace(0, 1, _HEAT_LEVELS)
  heat = colormaps['inferno'](levels)
  heat[:, 3] = 0.25 + 0.65 * levels  # The larger, the brighter and denser.
  heat = np.rint(255 * heat).astype(int)
  for basis in overlays.distinct_bases(z, _NUM_BASES):
    values = maps[basis]
    values = (values - values.min()) / max(np.ptp(values), 1e-12)
    values = np.rint((_HEAT_LEVELS - 1) * values).astype(np.uint8)
    name = f'basis {basis}, max {z[..., basis].max():.2f}'
    layers.append(_layer(name, 'attention', values, heat, size))
  return layers


def _layer(
  name: str,
  kind: str,
  values: UInt8[np.ndarray, 'h w'],
  colors: Sequence[Sequence[int]] | Integer[np.ndarray, 'colors 4'],
  size: tuple[int, int],
) -> Layer:
  """Draws values in RGBA colours; beyond the last one, in the last one."""
  last = len(colors) - 1
  image = Image.fromarray(np.minimum(values, last).astype(np.uint8))
  image = image.resize(size, Image.Resampling.NEAREST)
  red, green, blue, opacity = np.array(colors, np.uint8).T
  image.putpalette(np.stack([red, green, blue], axis=-1).tobytes())
  source = _data_uri(image, 'PNG', transparency=opacity.tobytes())
  return Layer(name, source, kind)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
  file = io.BytesIO()
  image.save(file, kind, optimize=True, **options)
  content = base64.b64encode(file.getvalue()).decode()
  return f'data:image/{kind.lower()};base64,{content}'
