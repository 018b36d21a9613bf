"""Prepared data sets: made once from the published files, then opened."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

import ml_collections
import tensorflow_datasets as tfds
from absl import logging

from emanet_jax.data import datasets
from emanet_jax.data.datasets import base
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A prepared data set.

  Attributes:
    spec: Its classes, palette and published counts.
    directory: The folder of its ArrayRecord files.
    counts: Number of examples of every split that was prepared.
  """

  spec: DatasetSpec
  directory: pathlib.Path
  counts: Mapping[str, int]

  def num_examples(self, split: str) -> int:
    """Returns a split's size; raises UserError when it is not there."""
    if not self.counts.get(split):
      expected = ', '.join(self.spec.num_examples)
      raise UserError(
        f'{self.spec.name} has no split {split!r} in {self.directory}, which '
        f'holds {", ".join(self.counts)} of {expected}. If the manual '
        'directory lacked it: complete that, delete the prepared folder, and '
        f'start again with --config.data.manual_dir. {self.spec.download}'
      )
    return self.counts[split]

  def source(self, split: str) -> Sequence[dict[str, bytes]]:
    """Opens a split for random access to its undecoded records.

    Args:
      split: One of `counts`.

    Returns:
      A sequence of {'id', 'image', 'label'}, all bytes, in published order.

    Raises:
      UserError: The split was not prepared, or its files are damaged.
    """
    self.num_examples(split)
    skip = tfds.decode.SkipDecoding()
    try:
      builder = tfds.builder_from_directory(self.directory)
      source = builder.as_data_source(
        split, decoders={'image': skip, 'label': skip}
      )
      source[0]  # Opens the files: a missing or cut one shows here.
    except (RuntimeError, OSError) as error:
      raise UserError(
        f'The records of {split!r} in {self.directory} cannot be read '
        f'({error}). Delete that folder and prepare the set again.'
      ) from error
    return source


def open_dataset(
  config: ml_collections.ConfigDict, splits: Sequence[str]
) -> Dataset:
  """Opens a data set, preparing it the first time.

  Nothing is downloaded. On several hosts that share a file system, prepare with
  one process first: all others would do the same work again.

  Args:
    config: The `data` part of a config: name; data_dir, where prepared sets
      live ('' = ./data); manual_dir, the unpacked archive, needed only to
      prepare; and allow_partial, whether fewer images than published will do.
    splits: The splits that are going to be used: these must be there, and
      complete unless allow_partial.

  Returns:
    The prepared data set.

  Raises:
    UserError: Unknown name, missing or damaged files, too few images.
  """
  builder_class = datasets.get_dataset(config.name)
  data_dir = pathlib.Path(config.data_dir or 'data').expanduser().resolve()
  builder = builder_class(data_dir=data_dir, file_format='array_record')
  allow_partial = config.allow_partial
  if not builder.is_prepared():
    _prepare(builder, config.manual_dir, splits, allow_partial)
    # TFDS reads the counts of a finished set on construction.
    builder = builder_class(data_dir=data_dir, file_format='array_record')
  dataset = Dataset(
    spec=builder.SPEC,
    directory=pathlib.Path(builder.data_dir),
    counts={s: i.num_examples for s, i in builder.info.splits.items()},
  )
  _check_counts(
    dataset.spec, dataset.counts, dataset.directory, splits, allow_partial
  )
  for split in splits:
    dataset.num_examples(split)
  logging.info(
    'Data set %s in %s: %s',
    dataset.spec.name,
    dataset.directory,
    ', '.join(f'{s} {n}' for s, n in dataset.counts.items()),
  )
  return dataset


def _prepare(
  builder: base.SegmentationBuilder,
  manual_dir: str,
  splits: Sequence[str],
  allow_partial: bool,
) -> None:
  """Writes a data set; it appears under its name only when complete."""
  spec, target = builder.SPEC, pathlib.Path(builder.data_dir)
  if target.exists():
    raise UserError(
      f'{target} is no prepared data set: dataset_info.json is missing. Delete '
      'this folder, or point --config.data.data_dir to another.'
    )
  root = _manual_root(spec, manual_dir, target) if spec.download else None
  counts = {split: len(items) for split, items in builder.find(root).items()}
  _check_counts(spec, counts, root or target, splits, allow_partial)
  logging.info(
    'Preparing %s (%s) from %s to %s; this happens once.',
    spec.name,
    ', '.join(f'{split} {n}' for split, n in counts.items()),
    root or 'the generator',
    target,
  )
  tfds.disable_progress_bar()  # The builder logs its progress.
  start = time.monotonic()
  try:
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(manual_dir=root)
    )
  except OSError:
    # Another process may have finished the same set first; its copy serves.
    if not builder.is_prepared():
      raise
  logging.info('Prepared %s in %.1f s.', spec.name, time.monotonic() - start)


def _manual_root(
  spec: DatasetSpec, manual_dir: str, target: pathlib.Path
) -> pathlib.Path:
  if not manual_dir:
    raise UserError(
      f'{spec.name} is not prepared in {target} and config.data.manual_dir is '
      'empty. Pass --config.data.manual_dir=FOLDER (or --config.data.data_dir '
      f'where it is prepared already). {spec.download}'
    )
  root = pathlib.Path(manual_dir).expanduser().resolve()
  if not root.is_dir():
    raise UserError(
      f'config.data.manual_dir {root} is no folder; expected the published '
      f'files of {spec.name} in it. {spec.download}'
    )
  if not os.listdir(root):
    raise UserError(
      f'config.data.manual_dir {root} is empty; expected the published files '
      f'of {spec.name} in it. {spec.download}'
    )
  return root


def _check_counts(
  spec: DatasetSpec,
  counts: Mapping[str, int],
  where: pathlib.Path,
  splits: Sequence[str],
  allow_partial: bool,
) -> None:
  if not any(counts.values()):
    raise UserError(
      f'{where} holds no image of {spec.name}: at least one is needed. '
      f'{spec.download}'
    )
  short = [
    f'{split} has {count} of {spec.num_examples[split]}'
    for split, count in counts.items()
    if split in splits and count < spec.num_examples[split]
  ]
  if short and not allow_partial:
    raise UserError(
      f'{spec.name} in {where} is incomplete: {"; ".join(short)} published '
      'images. Scores would not compare with published ones. Complete it '
      '(and delete it here where it is prepared already), or use it as it is '
      'with --config.data.allow_partial=True. '
      f'{spec.download}'
    )
