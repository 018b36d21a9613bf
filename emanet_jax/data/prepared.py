"""Prepared data sets, opened for reading."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.runtime.places import AnyPath

SUMMARY = 'preparation.json'  # beside the records: spec, origin, …, report


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A prepared data set.

  Attributes:
    spec: Its classes, palette and published counts.
    directory: The folder of its ArrayRecord files, here or in a bucket.
    counts: Number of examples of every split that was prepared.
    origin: The folder or archive that it was prepared from; '' = generated.
    listing: Digest of the files that lay there, see `origin`; '' = not kept.
  """

  spec: DatasetSpec
  directory: AnyPath
  counts: Mapping[str, int]
  origin: str = dataclasses.field(default='', kw_only=True)
  listing: str = dataclasses.field(default='', kw_only=True)

  def num_examples(self, split: str) -> int:
    """Returns a split's size; raises UserError when it is not there."""
    if not self.counts.get(split):
      expected = ', '.join(self.spec.num_examples)
      raise UserError(
        f'{self.spec.name} has no split {split!r} in {self.directory}, which '
        f'holds {", ".join(self.counts)}{expected and f" of {expected}"}. If '
        'the manual directory lacks it: complete that, delete what is prepared '
        'already, and start again with --config.data.manual_dir. '
        f'{self.spec.download}'
      )
    return self.counts[split]

  def require_labels(self, split: str) -> None:
    """Raises UserError for a split without labels."""
    if split in self.spec.unlabelled:
      raise UserError(
        f'{self.spec.name} {split} has no labels: it can be neither trained '
        'on nor scored. Choose another split.'
      )

  def has_labelled_pixels(self, split: str) -> bool:
    """Whether any pixel of a split is of a class, and not ignored."""
    return any(self.report()['splits'][split]['pixels'].values())

  def source(self, split: str) -> Sequence[Any]:
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

  def fingerprint(self, split: str) -> str:
    """SHA-256 over a split's ids, photos and labels, in order.

    '' for a set that was prepared before there were fingerprints.
    """
    return self.report()['splits'][split].get('fingerprint', '')

  def report(self) -> dict[str, Any]:
    """What its preparation met, see `Statistics.report`."""
    return json.loads((self.directory / SUMMARY).read_text())['report']


def load_dataset(directory: AnyPath) -> Dataset:
  """Opens the folder of a prepared data set.

  Raises:
    UserError: It is none.
  """
  with places.telling_faults(directory):
    exists = directory.is_dir()
  if not exists:
    raise UserError(
      f'{directory} does not exist: prepare the data set first, with python -m '
      'emanet_jax.tools.prepare_data NAME --manual_dir D --data_dir R.'
    )
  try:
    summary = json.loads((directory / SUMMARY).read_text())
    spec = DatasetSpec.from_json(summary['spec'])
    splits = tfds.builder_from_directory(directory).info.splits
  except Exception as error:  # TFDS adds types of its own
    raise UserError(
      f'{directory} is no prepared data set ({error}). Delete this folder, or '
      'point --config.data.data_dir to another.'
    ) from error
  counts = {split: info.num_examples for split, info in splits.items()}
  return Dataset(
    spec,
    directory,
    counts,
    origin=summary['origin'],
    listing=summary.get('listing', ''),
  )
