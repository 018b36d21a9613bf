"""Published files to a prepared data set, once."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
import tensorflow_datasets as tfds
from absl import logging

from emanet_jax.data import datasets
from emanet_jax.data.preparation import provenance
from emanet_jax.data.preparation.lock import alone
from emanet_jax.data.preparation.statistics import Statistics, format_report
from emanet_jax.data.prepared import SUMMARY, Dataset, load_dataset
from emanet_jax.data.reading.builder import SegmentationBuilder
from emanet_jax.data.reading.files import Files
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.runtime.places import AnyPath


def open_dataset(
  config: ml_collections.ConfigDict, splits: Sequence[str]
) -> Dataset:
  """Opens a data set, preparing it the first time.

  Nothing is downloaded. Of several processes that share a file system one
  prepares and the others wait for it. In a bucket, without locks, it must be
  there.

  Args:
    config: The `data` part of a config: name; data_dir, where prepared sets
      live ('' = ./data); manual_dir, the published files, needed only to
      prepare; and allow_partial, whether fewer images than published will do.
    splits: The splits that are going to be used: these must be there, have
      labels, and be complete unless allow_partial.

  Returns:
    The prepared data set.

  Raises:
    UserError: Unknown name, missing or damaged files, too few images.
  """
  directory = prepared_directory(config.name, config.data_dir)
  if not (places.is_bucket(directory) or directory.exists()):
    prepare(
      config.name,
      config.manual_dir,
      config.data_dir,
      splits=splits,
      allow_partial=config.allow_partial,
    )
  dataset = load_dataset(directory)
  provenance.check(dataset, config.manual_dir, _data_dir(config.data_dir))
  _check_splits(dataset, splits)
  if not config.allow_partial:
    _check_counts(dataset.spec, dataset.counts, directory, splits)
  counts = ', '.join(f'{s} {n}' for s, n in dataset.counts.items())
  logging.info('Data set %s in %s: %s', dataset.spec.name, directory, counts)
  return dataset


def prepared_directory(name: str, data_dir: str) -> AnyPath:
  """Returns where a data set's records are, or are going to be.

  Raises:
    UserError: Unknown name.
  """
  version = str(datasets.get_dataset(name).VERSION)
  return _data_dir(data_dir) / name / version


def prepare(
  name: str,
  manual_dir: str,
  data_dir: str,
  *,
  splits: Sequence[str] | None = None,
  allow_partial: bool = False,
  max_bad_share: float = 0.0,
) -> Dataset:
  """Reads, checks and writes a data set; it appears only when complete.

  A preparation that was killed leaves nothing that loads; the next one clears
  it away and starts anew. All cores decode; memory holds one shard (256 MB of
  photos).

  Args:
    name: Of the data set.
    manual_dir: Folder of the published files, archives or unpacked, or one
      archive.
    data_dir: Where prepared sets live on this machine; '' = ./data.
    splits: Those that must be there, labelled and complete; None = all that are
      found must be complete.
    allow_partial: Accept another number of images than published.
    max_bad_share: Of the examples, in [0, 1], which may be damaged and are
      then left out and reported; 0 = stop at the first.

  Returns:
    The prepared data set. One that was there already is left as it is.

  Raises:
    UserError: Unknown name, missing or damaged files, too few images, no room
      on the disk; or a user's own folder has changed since it was prepared.
  """
  for place in (data_dir, manual_dir):
    places.check_local(place)
  builder_class = datasets.get_dataset(name)
  target = prepared_directory(name, data_dir)
  with alone(_data_dir(data_dir), name) as scratch:
    if target.exists():
      dataset = load_dataset(target)
      provenance.check(dataset, manual_dir, _data_dir(data_dir))
      provenance.tell_what_is_left(dataset, manual_dir, scratch)
      return dataset
    builder = builder_class(data_dir=scratch, file_format='array_record')
    builder.spec = spec = builder_class.SPEC
    root = _manual_root(spec, manual_dir, target) if spec.download else None
    files = Files(root, spec.checksums, scratch) if root else None
    builder.found = {s: i for s, i in builder.find(files).items() if i}
    counts = {split: len(items) for split, items in builder.found.items()}
    _check_found(builder.spec, counts, root or target, splits, allow_partial)
    logging.info(
      'Preparing %s (%s) from %s to %s; this happens once.',
      name,
      ', '.join(f'{split} {n}' for split, n in counts.items()),
      root or 'the generator',
      target,
    )
    builder.statistics = Statistics(builder.spec, counts, max_bad_share)
    # In a scratch folder first: what loads is complete.
    written = _write(builder, root, _data_dir(data_dir))
    target.parent.mkdir(exist_ok=True)
    os.rename(written, target)
  dataset = load_dataset(target)
  report = dataset.report()
  logging.info(
    'Prepared %s in %.1f s:\n%s', name, report['seconds'], format_report(report)
  )
  return dataset


def _data_dir(data_dir: str) -> AnyPath:
  path = places.as_path(data_dir or 'data')
  return path if places.is_bucket(path) else path.expanduser().resolve()


def _check_found(
  spec: DatasetSpec,
  counts: Mapping[str, int],
  where: AnyPath,
  splits: Sequence[str] | None,
  allow_partial: bool,
) -> None:
  """Checks what was found, before the long part."""
  if not counts:
    raise UserError(
      f'{where} holds no image of {spec.name}: at least one is needed. '
      f'{spec.download}'
    )
  _check_splits(Dataset(spec, where, counts), splits or ())
  if not allow_partial:
    _check_counts(spec, counts, where, splits)
  if absent := [split for split in spec.num_examples if split not in counts]:
    logging.info('%s lacks %s of %s.', where, ', '.join(absent), spec.name)


def _check_splits(dataset: Dataset, splits: Sequence[str]) -> None:
  for split in splits:
    dataset.num_examples(split)
    dataset.require_labels(split)


def _write(
  builder: SegmentationBuilder,
  root: pathlib.Path | None,
  data_dir: pathlib.Path,
) -> str:
  """Writes the records and reads them back; returns their folder."""
  tfds.disable_progress_bar()  # The statistics log it.
  written = pathlib.Path(builder.data_dir)
  summary = {'origin': str(root or ''), 'listing': ''}
  if root and not builder.spec.num_examples:  # nobody published this
    summary['listing'] = provenance.listing(root, data_dir)
  try:
    builder.download_and_prepare()
    builder.statistics.check()
    if not builder.spec.num_examples:
      builder.spec = dataclasses.replace(
        builder.spec, num_examples=builder.statistics.counts()
      )
    summary['spec'] = dataclasses.asdict(builder.spec)
    summary['report'] = builder.statistics.report()
    (written / SUMMARY).write_text(json.dumps(summary, indent=1))
    dataset = load_dataset(written)
    for split in dataset.counts:
      for _ in dataset.source(split):  # ArrayRecord checks its own checksums.
        pass
  except UserError:
    raise
  # The ArrayRecord writer raises RuntimeError for a disk that is full; what
  # reading raises is `builder.ReadingError`.
  except (OSError, RuntimeError) as error:
    raise UserError(
      f'{builder.spec.name} could not be written to {written} ({error}). Make '
      'room or give another --data_dir; nothing half-written is left.'
    ) from error
  return str(written)


def _manual_root(
  spec: DatasetSpec, manual_dir: str, target: AnyPath
) -> pathlib.Path:
  if not manual_dir:
    raise UserError(
      f'{spec.name} is not prepared in {target}, and manual_dir is empty. Pass '
      '--manual_dir=FOLDER (in a training command --config.data.manual_dir=...;'
      ' or --config.data.data_dir where it is prepared already). '
      f'{spec.download}'
    )
  root = provenance.resolve(manual_dir)
  if not root.exists():
    raise UserError(
      f'manual_dir {root} is no folder; expected the published '
      f'files of {spec.name} in it. {spec.download}'
    )
  if root.is_dir() and not os.listdir(root):
    raise UserError(
      f'manual_dir {root} is empty; expected the published files '
      f'of {spec.name} in it. {spec.download}'
    )
  return root


def _check_counts(
  spec: DatasetSpec,
  counts: Mapping[str, int],
  where: AnyPath,
  splits: Sequence[str] | None,
) -> None:
  differing = [
    f'{split} has {counts[split]} of {published}'
    for split, published in spec.num_examples.items()
    if split in (counts if splits is None else splits)
    and counts[split] != published
  ]
  if differing:
    raise UserError(
      f'{spec.name} in {where} is not as published: {"; ".join(differing)} '
      'images. Scores would not compare with published ones. Complete it (and '
      'delete it here where it is prepared already), or use it as it is with '
      '--allow_partial (in a training command '
      f'--config.data.allow_partial=True). {spec.download}'
    )
