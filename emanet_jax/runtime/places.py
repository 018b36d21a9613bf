"""Whether something can be written to a place, before it is worked for."""

import os
import re
from pathlib import Path

from emanet_jax.errors import UserError


def check_local(path: str | Path) -> None:
  """Checks that a path is one of this machine's file systems.

  Raises:
    UserError: It is a URL, which would become a folder of a strange name.
  """
  if re.match(r'[a-z][a-z0-9+.-]+:/', str(path), re.IGNORECASE):
    raise UserError(
      f'{path} is no path of this machine: mount it (as gcsfuse does), and '
      'give the path of the mount'
    )


def check_new_file(path: str | Path) -> None:
  """Checks that a file can be made.

  Raises:
    UserError: Something is there already; or its folder is not there, is none,
      or may not be written to.
  """
  check_local(path)
  path = Path(path)
  if path.exists():
    raise UserError(f'{path} exists; give a new file, or delete it first')
  folder = path.absolute().parent
  if not folder.is_dir():
    what = 'is no folder' if folder.exists() else 'does not exist'
    raise UserError(f'{path}: {folder} {what}; make it, or give another place')
  check_folder(folder)


def check_folder(path: str | Path) -> None:
  """Checks that a folder can be written to, or made with those above it.

  Raises:
    UserError: A file is in its place, or this user may not write there.
  """
  check_local(path)
  place = Path(path).absolute()
  while not place.exists():
    place = place.parent
  if not place.is_dir():
    raise UserError(f'{path}: {place} is a file; give another place')
  if not os.access(place, os.W_OK | os.X_OK):
    raise UserError(
      f'{path}: {place} may not be written to by this user; give another place'
    )
