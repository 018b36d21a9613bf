"""One process at a time writes to a folder."""

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator

from absl import logging

from emanet_jax.errors import UserError
from emanet_jax.runtime import places

_NAME = '.owner'


@contextlib.contextmanager
def own(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Holds a folder, which is made when absent, against other processes.

  The hold ends with the process, however that ends: nothing has to be removed
  after a kill. Where there are no locks, as in buckets and some file systems,
  that is logged, and nobody is held off.

  Raises:
    UserError: Another process holds it, which is named; or it cannot be made.
  """
  places.check_folder(folder)
  folder = places.as_path(folder)
  if places.is_bucket(folder):
    logging.warning(
      '%s is in a bucket, which has no locks: let no other run write there',
      folder,
    )
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / _NAME, 'a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise UserError(
        f'{folder} is in use by {file.read().strip() or "another process"}. '
        'Two runs would spoil each other: wait for that one, stop it, or give '
        'another folder'
      ) from None
    except OSError as error:
      logging.warning('%s cannot be locked (%s)', folder, error)
    file.truncate(0)
    now = datetime.datetime.now().isoformat(' ', 'seconds')
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {now}')
    file.flush()
    yield
