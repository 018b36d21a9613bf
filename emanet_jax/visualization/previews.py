"""A contact sheet of what training is going to see."""

import os

import cv2
import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.input import transforms
from emanet_jax.data.input.augmentations import color
from emanet_jax.data.prepared import Dataset
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.visualization.figures import Panel, Row, page, save_png
from emanet_jax.visualization.overlays import legend, overlay

# One augmentation each, about as strong as the field uses it.
_COLORS = {
  'brightness': (color.Color(brightness=0.6), color.Color(brightness=1.4)),
  'contrast': (color.Color(contrast=0.6), color.Color(contrast=1.4)),
  'saturation': (color.Color(saturation=0.4), color.Color(saturation=1.6)),
  'hue': (color.Color(hue=-0.1), color.Color(hue=0.1)),
  'blur': (color.Color(blur=2.0), color.Color(blur=1.0)),
}
_ANGLE = 15.0  # degrees
_CROPS = 2
_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
_LABEL_WEIGHT = 0.4  # so that the photo's colours can be judged below it
# Stripes of two greys, so that they are seen on any photo.
_STRIPES = np.array([(60, 60, 60), (230, 230, 230)], np.uint8)
_STRIPE_SHARE = 1 / 64  # of the picture's longer side
_DARK = 48  # of 255: what no channel of a dark class's colour exceeds


def preview_page(
  path: str | os.PathLike[str],
  dataset: Dataset,
  split: str,
  *,
  num_examples: int = 6,
  crop_size: int = 513,
  seed: int = 0,
) -> None:
  """Draws examples with their labels over them, augmented in every way.

  A row shows the whole photo, crops as the default recipe draws them, and one
  of them again under each further augmentation, once each way in turn. What is
  ignored is striped, the padding of crops included.

  Args:
    path: The PNG file.
    dataset: A prepared data set.
    split: Its split.
    num_examples: How many, evenly spread over the split.
    crop_size: Pixels.
    seed: Of crops.

  Raises:
    UserError: The split is absent or damaged.
  """
  source = dataset.source(split)
  palette = np.array(dataset.spec.palette, np.uint8)
  rng = np.random.default_rng(seed)
  count = min(num_examples, len(source))
  rows, occurring = [], set()
  for row, position in enumerate(np.linspace(0, len(source) - 1, count)):
    example = transforms.decode(source[round(position)])
    occurring |= set(np.unique(example['label']).tolist())
    pictures, notes = _augmented(example, crop_size, row, rng)
    panels = [
      Panel(_drawn(image, label, palette), note)
      for (image, label), note in zip(pictures, notes, strict=True)
    ]
    panels.insert(0, Panel(_whole(example, palette, crop_size)))
    height, width = example['label'].shape
    rows.append(Row(example['id'], f'{width}×{height} pixels', panels))
  headers = ['photo', *['crop'] * _CROPS, *_COLORS, 'rotation']
  classes = [
    f'{name} (darkens)' if max(rgb) <= _DARK else name
    for name, rgb in zip(dataset.spec.classes, palette.tolist(), strict=True)
  ]
  entries = legend(occurring, classes, palette)
  entries.append(('ignored (stripes)', (_STRIPES.mean() / 255,) * 3))
  title = f'{dataset.spec.name} {split}'
  save_png(path, page(rows, headers, 1.7, title, entries))


def _augmented(
  example: dict, size: int, row: int, rng: np.random.Generator
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
  """Pairs of image and label, [size, size], and a note for each."""
  image, label = example['image'], example['label']
  crops = [
    transforms.draw(rng, *label.shape, size=size, scales=_SCALES, flip=True)
    for _ in range(_CROPS)
  ]
  turned = transforms.Crop(**{**vars(crops[-1]), 'angle': _ANGLE * (-1) ** row})
  pairs = [transforms.apply(image, label, crop) for crop in crops]
  notes = [
    f'scale {crop.scale:g}{", flipped" if crop.flip else ""}' for crop in crops
  ]
  for name, ways in _COLORS.items():
    way = ways[row % 2]
    pairs.append(transforms.apply(color.apply(image, way), label, crops[-1]))
    notes.append(f'{name} {getattr(way, name):g}')
  pairs.append(transforms.apply(image, label, turned))
  notes.append(f'{turned.angle:g}°')
  return pairs, notes


def _drawn(
  image: UInt8[np.ndarray, 'h w 3'],
  label: UInt8[np.ndarray, 'h w'],
  palette: UInt8[np.ndarray, 'classes 3'],
) -> UInt8[np.ndarray, 'h w 3']:
  """The photo under the colours of its label and the stripes of the rest."""
  picture = overlay(image, label, palette, _LABEL_WEIGHT)
  rows, columns = np.indices(label.shape)
  width = max(1, round(_STRIPE_SHARE * max(label.shape)))
  stripes = _STRIPES[(rows + columns) // width % 2]
  striped = np.rint(0.5 * image + 0.5 * stripes).astype(np.uint8)
  return np.where((label == IGNORE_LABEL)[..., None], striped, picture)


def _whole(
  example: dict, palette: UInt8[np.ndarray, 'classes 3'], size: int
) -> UInt8[np.ndarray, 's s 3']:
  """The whole photo and label, shrunk or enlarged into a white square."""
  scale = size / max(example['label'].shape)
  height, width = (
    max(1, round(scale * side)) for side in example['label'].shape
  )
  image = cv2.resize(
    example['image'], (width, height), interpolation=cv2.INTER_AREA
  )
  label = cv2.resize(
    example['label'], (width, height), interpolation=cv2.INTER_NEAREST
  )
  square = np.full((size, size, 3), 255, np.uint8)
  square[:height, :width] = _drawn(image, label, palette)
  return square
