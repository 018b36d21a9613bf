"""Published files to a prepared data set in a bucket, once."""

import pathlib
import tempfile
from typing import Any

from absl import logging

from emanet_jax.data.preparation import prepare as preparation
from emanet_jax.data.preparation import provenance
from emanet_jax.data.prepared import SUMMARY, Dataset, load_dataset
from emanet_jax.runtime import atomic, places


def prepare(
  name: str, manual_dir: str, data_dir: str, **options: Any
) -> Dataset:
  """Prepares a data set here and copies it; it loads only when complete.

  Args:
    name: Of the data set.
    manual_dir: As `preparation.prepare` takes it.
    data_dir: Where prepared sets live in a bucket. The records are written to
      this machine's folder for temporary files before.
    **options: See `preparation.prepare`.

  Returns:
    The data set in the bucket. One that was there already is left as it is.

  Raises:
    UserError: As `preparation.prepare`, or the bucket cannot be used.
  """
  target = preparation.prepared_directory(name, data_dir)
  places.check_folder(data_dir)
  with tempfile.TemporaryDirectory() as here:
    # ArrayRecord reads in buckets, but writes on this machine alone.
    if (target / SUMMARY).exists():
      dataset = load_dataset(target)
      provenance.check(dataset, manual_dir, target)
      provenance.tell_what_is_left(dataset, manual_dir, pathlib.Path(here))
      return dataset
    made = preparation.prepare(name, manual_dir, here, **options).directory
    # The summary last: without it nothing loads.
    for file in sorted(made.iterdir(), key=lambda file: file.name == SUMMARY):
      atomic.write(target / file.name, file.read_bytes())
  logging.info('Copied to %s', target)
  return load_dataset(target)
