"""Training batches of a small data set, and how they compare."""

import itertools

import numpy as np

from emanet_jax.data.input import pipeline


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same(left, right):
  for a, b in zip(left, right, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
    np.testing.assert_array_equal(a['label'], b['label'])


def train(shapes, *, batch_size=8, seed=0, index=0, count=1, **changes):
  dataset, config = shapes
  config = config.copy_and_resolve_references()
  for key, value in changes.items():
    color = config.augmentations.color
    (color if key in color else config)[key] = value
  return pipeline.train_iterator(
    dataset,
    config,
    batch_size=batch_size,
    seed=seed,
    process_index=index,
    process_count=count,
  )
