"""Paths of this machine or of a bucket, looked at before they are worked for.

A bucket is `gs://BUCKET/FOLDER`. Its paths are etils' `epath`, with the methods
of pathlib's; but `absolute` and `resolve` of these would put a bucket below the
working directory, hence `absolute` here.
"""

import contextlib
import importlib.util
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from emanet_jax.errors import UserError

AnyPath = Path | epath.Path


def as_path(place: str | os.PathLike[str]) -> AnyPath:
  """The path that is meant.

  Raises:
    UserError: It is another URL than a bucket's, which would become a folder of
      a strange name; or what speaks to buckets is not installed.
  """
  text = os.fspath(place)
  if not re.match(r'gs://[^/]', text):
    check_local(text)
    return Path(place)
  if importlib.util.find_spec('gcsfs') is None:
    raise UserError(
      f'{text}: buckets need gcsfs, which is not installed; pip install gcsfs'
    )
  import fsspec  # comes with gcsfs

  # Others write to the bucket as well (TensorStore, other processes), which a
  # kept listing would not show.
  options = fsspec.config.conf.setdefault('gcs', {})
  options.setdefault('use_listings_cache', False)
  return epath.Path(text)


def is_bucket(path: str | os.PathLike[str]) -> bool:
  """Whether a path is in a bucket."""
  return os.fspath(path).startswith('gs://')


def absolute(path: AnyPath) -> AnyPath:
  """The same path, whatever the working directory becomes."""
  return path if is_bucket(path) else path.absolute()


@contextlib.contextmanager
def telling_faults(path: AnyPath) -> Iterator[None]:
  """Turns what clients of buckets raise, a dozen types, into one line."""
  try:
    yield
  except Exception as error:
    if isinstance(error, UserError) or not is_bucket(path):
      raise
    what = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
    raise UserError(
      f'{path} cannot be used: {what}. See that the bucket exists and that '
      'this machine may read and write there (gcloud auth application-default '
      'login)'
    ) from error


def check_local(path: str | os.PathLike[str]) -> None:
  """Checks that a path is one of this machine's file systems.

  Raises:
    UserError: It is a URL, which would become a folder of a strange name.
  """
  if re.match(r'[a-z][a-z0-9+.-]+:/', os.fspath(path), re.IGNORECASE):
    raise UserError(
      f'{path} is no path of this machine: mount it (as gcsfuse does), and '
      'give the path of the mount; gs://BUCKET/… is taken for workdirs, data '
      'and the compilation cache alone'
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


def check_folder(path: str | os.PathLike[str]) -> None:
  """Checks that a folder can be written to, or made with those above it.

  Raises:
    UserError: A file is in its place, or this user may not write there.
  """
  place = absolute(as_path(path))
  if is_bucket(place):
    if any(sign in str(place) for sign in '*?[]'):
      raise UserError(
        f'{path}: gcsfs takes the signs * ? [ ] in names for patterns, when it '
        'deletes; give another place'
      )
    probe = place / f'.{uuid.uuid4().hex}'
    with telling_faults(place):
      probe.write_bytes(b'')
      probe.unlink()
    return
  while not place.exists():
    place = place.parent
  if not place.is_dir():
    raise UserError(f'{path}: {place} is a file; give another place')
  if not os.access(place, os.W_OK | os.X_OK):
    raise UserError(
      f'{path}: {place} may not be written to by this user; give another place'
    )
