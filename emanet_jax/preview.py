"""A contact sheet of what training is going to see."""

import os

import cv2
import numpy as np
from jaxtyping import UInt8

from emanet_jax.data import color, transforms
from emanet_jax.data.prepared import Dataset
from emanet_jax.figures import Panel, Row, page, save_png
from emanet_jax.visualize import legend, overlay

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


def preview_page(
  path: str | os.PathLike[str],
  dataset: Dataset,
  split: str,
  *,
  num_examples: int = 6,
  crop_size: int = 321,
  seed: int = 0,
) -> None:
  """Draws examples with their labels over them, augmented in every way.

  A row shows the whole photo, crops as the default recipe draws them, and one
  of them again under each further augmentation, once each way in turn.

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
      Panel(overlay(image, label, palette, _LABEL_WEIGHT), note)
      for (image, label), note in zip(pictures, notes, strict=True)
    ]
    height, width = example['label'].shape
    rows.append(Row(example['id'], f'{width}×{height} pixels', panels))
  headers = ['photo', *['crop'] * _CROPS, *_COLORS, 'rotation']
  entries = legend(occurring, dataset.spec.classes, palette)
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
  return [_fitted(image, label, size), *pairs], ['', *notes]


def _fitted(
  image: UInt8[np.ndarray, 'h w 3'], label: UInt8[np.ndarray, 'h w'], size: int
) -> tuple[UInt8[np.ndarray, 's s 3'], UInt8[np.ndarray, 's s']]:
  """The whole photo and label, shrunk or enlarged into a white square."""
  scale = size / max(label.shape)
  height, width = (max(1, round(scale * side)) for side in label.shape)
  out_image = np.full((size, size, 3), 255, np.uint8)
  out_label = np.full((size, size), 255, np.uint8)
  out_image[:height, :width] = cv2.resize(
    image, (width, height), interpolation=cv2.INTER_AREA
  )
  out_label[:height, :width] = cv2.resize(
    label, (width, height), interpolation=cv2.INTER_NEAREST
  )
  return out_image, out_label
