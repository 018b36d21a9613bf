"""Examples of many sizes in batches of few shapes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.inference import predictor
from emanet_jax.inference.views import padded_size


def batch_shape(
  height: int,
  width: int,
  *,
  largest: tuple[int, int],
  step: int,
  stride: int,
) -> tuple[int, int]:
  """The shape of the batch that an image of this size goes into.

  Args:
    height: Of the image.
    width: Of the image.
    largest: Greatest height and greatest width of the split.
    step: 0: one shape for all; else each side is rounded up to one more than a
      multiple of it.
    stride: The network's output stride.
  """
  if step:
    return padded_size(height, width, step)
  return padded_size(*largest, stride)


def same_shape_groups(
  examples: Iterable[dict],
  batch_size: int,
  shape_of: Callable[[int, int], tuple[int, int]],
) -> Iterator[tuple[list[dict], tuple[int, int]]]:
  """Examples in groups of one shape: full ones first, then the rest."""
  waiting = defaultdict(list)
  for index, example in enumerate(examples):
    shape = shape_of(*example['label'].shape)
    waiting[shape].append({**example, 'index': index})
    if len(waiting[shape]) == batch_size:
      yield waiting.pop(shape), shape
  for shape, group in waiting.items():
    yield group, shape


def collate(
  group: list[dict], shape: tuple[int, int], batch_size: int
) -> dict[str, np.ndarray]:
  """A batch of the group, filled up with empty images and ignored labels."""
  label = np.full((batch_size, *shape), IGNORE_LABEL, np.uint8)
  for i, example in enumerate(group):
    height, width = example['label'].shape
    label[i, :height, :width] = example['label']
  images = [example['image'] for example in group]
  return {'label': label, **predictor.pad_images(images, shape, batch_size)}
