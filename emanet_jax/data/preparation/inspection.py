"""Looks a prepared data set over, record by record."""

import os
from collections.abc import Sequence

import grain
import numpy as np
from absl import logging

from emanet_jax.data.prepared import Dataset
from emanet_jax.data.reading import checks, images
from emanet_jax.data.reading.example import Example
from emanet_jax.errors import UserError
from emanet_jax.runtime.progress import Progress


def inspect_counts(dataset: Dataset) -> list[str]:
  """Compares the splits that are there with the published ones.

  Returns:
    A line for each split of another size.
  """
  return [
    f'{split}: {count} examples, published are '
    f'{dataset.spec.num_examples[split]}'
    for split, count in dataset.counts.items()
    if count != dataset.spec.num_examples[split]
  ]


def inspect(dataset: Dataset, sample: int = 0) -> list[str]:
  """Checks decodability, sizes, label values and ids.

  Args:
    dataset: A prepared data set.
    sample: Examples of each split to look at, evenly spread; 0 = all.

  Returns:
    What is wrong, a line each; empty when nothing is.
  """
  return [
    problem
    for split in dataset.counts
    for problem in _inspect_split(dataset, split, sample)
  ]


def _inspect_split(dataset: Dataset, split: str, sample: int) -> list[str]:
  try:
    source = dataset.source(split)
  except UserError as error:
    return [str(error)]
  total = min(sample, len(source)) if sample else len(source)
  positions = np.linspace(0, len(source) - 1, total).round().astype(int)

  def look(index: int) -> tuple[str, str]:
    return _inspect_record(dataset, source, split, int(positions[index]))

  threads = os.cpu_count() or 1
  results = (
    grain.MapDataset.range(total)
    .map(look)
    .to_iter_dataset(grain.ReadOptions(threads, 4 * threads))
  )
  problems, ids = [], set()
  progress = Progress(f'checking {split}', total)
  for name, problem in results:
    if problem:
      problems.append(problem)
    elif name in ids:
      problems.append(f'{split}: the id {name!r} occurs twice')
    ids.add(name)
    progress.tick()
  logging.info(
    '%s: %d of %d examples looked at, %d problem(s)',
    split,
    total,
    len(source),
    len(problems),
  )
  return problems


def _inspect_record(
  dataset: Dataset, source: Sequence, split: str, position: int
) -> tuple[str, str]:
  """Returns the record's id and what is wrong with it, '' for nothing."""
  where = f'{dataset.directory} {split}[{position}]'
  try:
    record = source[position]
    name = record['id'].decode()
    where = f'{where} {name!r}'
    label = np.asarray(images.open_image(record['label'], where))
    checks.check_example(
      dataset.spec, Example(name, record['image'], label, where, where)
    )
  # ArrayRecord raises RuntimeError where its checksums do not match.
  except (UserError, RuntimeError, OSError) as error:
    message = str(error)
    return '', message if message.startswith(where) else f'{where}: {message}'
  return name, ''
