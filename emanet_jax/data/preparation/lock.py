"""One process at a time, in a folder of its own."""

import contextlib
import fcntl
import pathlib
import shutil
from collections.abc import Iterator

from absl import logging

from emanet_jax.errors import UserError


@contextlib.contextmanager
def alone(data_dir: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
  """Gives one process at a time an empty scratch folder for a data set.

  The lock goes with its process, so whatever lies in the folder when the lock
  is free was left by a preparation that was killed.

  Args:
    data_dir: Where prepared sets live; made when absent.
    name: Of the data set.

  Raises:
    UserError: Nothing can be written there.
  """
  scratch = data_dir / f'.{name}.preparing'
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = open(data_dir / f'.{name}.lock', 'w')  # noqa: SIM115
  except OSError as error:
    raise UserError(
      f'{data_dir} cannot be written to ({error}). Give another --data_dir.'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.info('Waiting for another process that prepares %s.', name)
      fcntl.flock(lock, fcntl.LOCK_EX)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
      yield scratch
    finally:
      shutil.rmtree(scratch, ignore_errors=True)
