"""Where a data set was prepared from, and whether it still is the same."""

import hashlib
import pathlib

from absl import logging

from emanet_jax.data import datasets
from emanet_jax.data.preparation.statistics import format_report
from emanet_jax.data.prepared import Dataset
from emanet_jax.data.reading.files import Files
from emanet_jax.errors import UserError
from emanet_jax.runtime.places import AnyPath


def resolve(manual_dir: str) -> pathlib.Path:
  """Returns the path that a user means."""
  return pathlib.Path(manual_dir).expanduser().resolve()


def listing(root: pathlib.Path, leave_out: AnyPath) -> str:
  """SHA-256 over paths and sizes of all files, which tells most changes.

  Args:
    root: A folder or an archive.
    leave_out: A folder not to look into: that of prepared sets.
  """
  digest = hashlib.sha256()
  files = [(root.name, root.stat().st_size)] if root.is_file() else []
  if root.is_dir():
    files = [
      (file.path, file.size)
      for file in Files(root, {}, root).walk('')  # opens no archive
      if leave_out not in (root / file.path).parents
    ]
  for path, size in files:
    digest.update(f'{path}\0{size}\0'.encode(errors='surrogateescape'))
  return digest.hexdigest()


def check(dataset: Dataset, manual_dir: str, data_dir: AnyPath) -> None:
  """Checks that a prepared set is what the user means.

  Published sets are the same wherever they lie.

  Raises:
    UserError: It is a user's own, and made from another folder, or from other
      files in it.
  """
  logging.info('%s was prepared from %s', dataset.directory, dataset.origin)
  is_published = bool(datasets.get_dataset(dataset.spec.name).SPEC.num_examples)
  if is_published or not manual_dir:
    return
  root = resolve(manual_dir)
  if dataset.origin != str(root):
    raise UserError(
      f'{dataset.directory} was prepared from {dataset.origin}, not from '
      f'{manual_dir}. Give each folder a data_dir of its own, or delete the '
      'prepared one to prepare it anew.'
    )
  if dataset.listing not in ('', listing(root, data_dir)):
    raise UserError(
      f'{dataset.directory} was prepared from {root}, in which files were '
      f'added, removed or changed since. Delete {dataset.directory} to prepare '
      'them anew, or leave manual_dir out to use what is prepared.'
    )


def tell_what_is_left(
  dataset: Dataset, manual_dir: str, scratch: pathlib.Path
) -> None:
  """Logs that a set is not prepared again, and which splits it could gain."""
  logging.info(
    '%s is prepared already (%s) from %s and is left as it is; delete %s to '
    'prepare anew.\n%s',
    dataset.spec.name,
    ', '.join(f'{split} {n}' for split, n in dataset.counts.items()),
    dataset.origin or 'the generator',
    dataset.directory,
    format_report(dataset.report()),
  )
  absent = dataset.spec.num_examples.keys() - dataset.counts.keys()
  if not (absent and manual_dir):
    return
  # Verifying would take long; what is prepared is verified.
  names = dict.fromkeys(dataset.spec.checksums, '')
  builder_class = datasets.get_dataset(dataset.spec.name)
  builder = builder_class(data_dir=scratch)
  builder.spec = builder.SPEC
  try:
    found = builder.find(Files(resolve(manual_dir), names, scratch))
  except UserError as error:
    logging.info('%s', error)
    return
  if gained := [split for split in found if split in absent and found[split]]:
    logging.warning(
      '%s now holds %s, too, which %s lacks: delete that to prepare all.',
      manual_dir,
      ', '.join(gained),
      dataset.directory,
    )
