"""Prepared records to batches for training and images for evaluation.

The order of training examples and every augmentation depend on (seed, position)
alone, never on threads or processes. A checkpoint keeps the position, and what
else the batches were made with, so that going on with anything else is noticed.
"""

import contextlib
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import grain
import ml_collections
import numpy as np
from PIL import Image

from emanet_jax.data.input import transforms
from emanet_jax.data.input.augmentations import create_augmentations
from emanet_jax.data.input.iterator import TrainIterator
from emanet_jax.data.preparation.prepare import open_dataset
from emanet_jax.data.prepared import Dataset
from emanet_jax.errors import UserError

__all__ = [
  'Dataset',
  'TrainIterator',
  'evaluation_examples',
  'image_sizes',
  'open_dataset',
  'train_iterator',
]


def train_iterator(
  dataset: Dataset,
  config: ml_collections.ConfigDict,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> TrainIterator:
  """Returns the endless iterator over augmented training batches.

  Every epoch has a new order and holds every example once; a batch may span two
  epochs, so that none is dropped.

  Up to max(num_threads, prefetch) batches are held ahead, each of 4 b crop²
  bytes: with 16 crops of 513² 17 MB, 270 MB for 16 threads.

  Args:
    dataset: From `open_dataset`.
    config: The `data` part of a config: train_split, crop_size (pixels), the
      augmentations, num_threads, and prefetch (batches made ahead).
    batch_size: Examples of a step over all processes.
    seed: Of order and augmentation.
    process_index: This process.
    process_count: Number of processes, a divisor of batch_size.

  Returns:
    An iterator with get_state and set_state over {'image': uint8 RGB
    [b, crop, crop, 3], 'label': uint8 [b, crop, crop]}, b = batch_size /
    process_count.

  Raises:
    UserError: The split is absent, or a value is impossible.
  """
  _check_training(config, batch_size, process_count)
  options = _transform_options(config)
  applied = {'augmentations': create_augmentations(options['augmentations'])}
  made_with = {
    'name': dataset.spec.name,
    'train_split': config.train_split,
    'num_examples': dataset.num_examples(config.train_split),
    'fingerprint': dataset.fingerprint(config.train_split),
    'classes': list(dataset.spec.classes),
    'seed': seed,
    **options,
  }
  records = _Records(dataset, config.train_split)
  # Lazy: an example is read, decoded and augmented when a batch asks for it.
  # Shuffling and drawing follow from the seed and the position alone.
  examples = (
    grain.MapDataset.source(records)
    .seed(seed)
    .shuffle()
    .repeat()
    .map(records.decode)
    .random_map(functools.partial(_augment, **{**options, **applied}))
  )
  # The reading threads are the parallelism: OpenCV's own would fight them.
  cv2.setNumThreads(0)
  return TrainIterator(
    examples,
    batch_size=batch_size,
    process_index=process_index,
    process_count=process_count,
    read_options=_read_options(config.num_threads, config.prefetch),
    made_with=made_with,
  )


def image_sizes(
  dataset: Dataset, split: str, positions: Sequence[int]
) -> list[tuple[int, int]]:
  """Height and width of examples as stored; reads them, but decodes nothing.

  Args:
    dataset: From `open_dataset`.
    split: Its name.
    positions: Of the examples in published order.

  Raises:
    UserError: The split is absent.
  """
  source = dataset.source(split)

  def measure(position: int) -> tuple[int, int]:
    with (
      _telling_place(dataset, split, position),
      Image.open(io.BytesIO(source[position]['image'])) as image,
    ):
      return image.height, image.width

  with ThreadPoolExecutor() as pool:
    return list(pool.map(measure, positions))


def evaluation_examples(
  dataset: Dataset,
  split: str,
  positions: Sequence[int] | None = None,
  *,
  num_threads: int = 2,
) -> Iterator[dict[str, Any]]:
  """Returns an iterator over examples of a split at native size.

  Args:
    dataset: From `open_dataset`.
    split: Its name.
    positions: Of the examples in published order, in the order wanted; None:
      all, as published.
    num_threads: Threads that decode ahead, two images each.

  Returns:
    An iterator over {'id': str, 'image': uint8 RGB [h, w, 3], 'label': uint8
    [h, w]}.

  Raises:
    UserError: The split is absent.
  """
  records = _Records(dataset, split)
  if positions is None:
    positions = range(len(records))
  if not len(positions):
    return iter(())
  return iter(
    grain.MapDataset.source(positions)
    .map(lambda position: records.decode(records[position]))
    .to_iter_dataset(_read_options(num_threads, 2 * num_threads))
  )


class _Records:
  """A split's records; a bad one is told by its place."""

  def __init__(self, dataset: Dataset, split: str):
    self._dataset, self._split = dataset, split
    self._source = dataset.source(split)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, position: int) -> tuple[int, Any]:
    with _telling_place(self._dataset, self._split, position):
      return position, self._source[position]

  def decode(self, record: tuple[int, Any]) -> dict[str, Any]:
    """Decodes what an index gives."""
    position, content = record
    with _telling_place(self._dataset, self._split, position):
      return transforms.decode(content)


@contextlib.contextmanager
def _telling_place(
  dataset: Dataset, split: str, position: int
) -> Iterator[None]:
  try:
    yield
  # ArrayRecord raises RuntimeError where its checksums do not match, decoders
  # many types, or none and give nothing.
  except Exception as error:
    what = ' '.join(str(error).split())[:200]
    raise UserError(
      f'{dataset.directory}: record {position} of {split} cannot be read '
      f'({type(error).__name__}: {what}). python -m emanet_jax.tools.'
      f'prepare_data {dataset.spec.name} --check finds all such records; '
      'delete the folder and prepare the data set again'
    ) from error


def _transform_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """All that `_augment` depends on, as JSON holds it."""
  sections = {k: dict(v) for k, v in config.augmentations.items()}
  return {
    'crop_size': config.crop_size,
    'scales': list(config.scales),
    'flip': config.flip,
    'rotation': config.rotation,
    # Those switched off say nothing: more of them may come to be.
    'augmentations': {k: sections[k] for k in create_augmentations(sections)},
  }


def _augment(
  example: Mapping[str, Any],
  rng: np.random.Generator,
  *,
  crop_size: int,
  scales: Sequence[float],
  flip: bool,
  rotation: float,
  augmentations: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  image, label = example['image'], example['label']
  crop = transforms.draw(
    rng,
    *label.shape,
    size=crop_size,
    scales=scales,
    flip=flip,
    rotation=rotation,
  )
  # Before the crop, whose padding keeps its colour.
  for apply in augmentations.values():
    image, label = apply(image, label, rng)
  image, label = transforms.apply(image, label, crop)
  return {'image': image, 'label': label}


def _read_options(num_threads: int, prefetch: int) -> grain.ReadOptions:
  # A thread makes one batch, so fewer slots than threads would idle some.
  return grain.ReadOptions(num_threads, max(num_threads, prefetch))


def _check_training(
  config: ml_collections.ConfigDict, batch_size: int, process_count: int
) -> None:
  for key in ('crop_size', 'num_threads', 'prefetch'):
    if config[key] < 1:
      raise UserError(
        f'config.data.{key} is {config[key]}; it must be 1 or more.'
      )
  if not config.scales or min(config.scales) <= 0:
    raise UserError(
      f'config.data.scales is {tuple(config.scales)}; expected one factor or '
      'more, all above 0, such as (0.5, 1.0, 2.0).'
    )
  if not 0 <= config.rotation <= 180:
    raise UserError(
      f'config.data.rotation is {config.rotation}; it must be 0 (off) to 180.'
    )
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f'The batch size {batch_size} must be a positive multiple of the number '
      f'of processes, {process_count}.'
    )
