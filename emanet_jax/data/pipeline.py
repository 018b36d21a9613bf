"""Prepared records to batches for training and images for evaluation.

The order of training examples and every augmentation depend on (seed, position)
alone, never on threads or processes; a position is all that a checkpoint keeps.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import grain
import grain.experimental
import ml_collections
import numpy as np

from emanet_jax.data import transforms
from emanet_jax.data.preparation import open_dataset
from emanet_jax.data.prepared import Dataset
from emanet_jax.errors import UserError

__all__ = ['Dataset', 'evaluation_examples', 'open_dataset', 'train_iterator']


def train_iterator(
  dataset: Dataset,
  config: ml_collections.ConfigDict,
  *,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Returns the endless iterator over augmented training batches.

  Every epoch has a new order and holds every example once; a batch may span two
  epochs, so that none is dropped. The state counts examples of all processes:
  it may be restored with any number of threads, processes, or another batch
  size, but only with the same seed, split and transform, which it does not
  contain.

  Args:
    dataset: From `open_dataset`.
    config: The `data` part of a config: train_split, crop_size (pixels),
      scales, flip, num_threads, and prefetch (batches made ahead).
    batch_size: Examples of a step over all processes.
    seed: Of order and augmentation.
    process_index: This process.
    process_count: Number of processes, a divisor of batch_size.

  Returns:
    A Grain iterator with get_state and set_state over {'image': uint8 RGB
    [b, crop, crop, 3], 'label': int32 [b, crop, crop]}, b = batch_size /
    process_count.

  Raises:
    UserError: The split is absent, or a value is impossible.
  """
  _check_training(config, batch_size, process_count)
  augment = functools.partial(
    _augment,
    size=config.crop_size,
    scales=tuple(config.scales),
    flip=config.flip,
  )
  examples = (
    grain.MapDataset.source(dataset.source(config.train_split))
    .seed(seed)
    .shuffle()
    .repeat()
    .map(transforms.decode)
    .random_map(augment)
  )
  # The reading threads are the parallelism: OpenCV's own would fight them.
  cv2.setNumThreads(0)
  return iter(
    grain.experimental.ElasticIterator(
      examples,
      batch_size,
      grain.sharding.ShardOptions(process_index, process_count),
      read_options=_read_options(config.num_threads, config.prefetch),
    )
  )


def evaluation_examples(
  dataset: Dataset,
  split: str,
  *,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> Iterator[dict[str, Any]]:
  """Returns an iterator over a split in published order, at native size.

  Args:
    dataset: From `open_dataset`.
    split: Its name.
    process_index: This process, which gets every process_count-th example.
    process_count: Number of processes.
    num_threads: Threads that decode ahead, two images each.

  Returns:
    An iterator over {'id': str, 'image': uint8 RGB [h, w, 3], 'label': uint8
    [h, w]}; empty where processes outnumber examples.

  Raises:
    UserError: The split is absent.
  """
  source = dataset.source(split)
  if process_index >= len(source):
    return iter(())
  examples = grain.MapDataset.source(source)[process_index::process_count]
  return iter(
    examples.map(transforms.decode).to_iter_dataset(
      _read_options(num_threads, 2 * num_threads)
    )
  )


def _augment(
  example: Mapping[str, Any],
  rng: np.random.Generator,
  *,
  size: int,
  scales: Sequence[float],
  flip: bool,
) -> dict[str, np.ndarray]:
  height, width = example['label'].shape
  crop = transforms.draw(
    rng, height, width, size=size, scales=scales, flip=flip
  )
  image, label = transforms.apply(example['image'], example['label'], crop)
  return {'image': image, 'label': label.astype(np.int32)}


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
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f'The batch size {batch_size} must be a positive multiple of the number '
      f'of processes, {process_count}.'
    )
