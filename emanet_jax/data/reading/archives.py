"""Archives as the files in them, read where they lie."""

import gzip
import hashlib
import os
import pathlib
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

from absl import logging

from emanet_jax.errors import UserError

_TAR, _TGZ, _ZIP = ('.tar',), ('.tgz', '.tar.gz'), ('.zip',)
SUFFIXES = _TAR + _TGZ + _ZIP
# What reading a damaged archive raises.
DAMAGE = (
  *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
  *(zlib.error, EOFError),
)
_REMEDY = (
  'It was cut short or damaged on its way: get it again, or give the folder '
  'that a complete copy unpacks to.'
)

Members = dict[str, tuple[int, Callable[[], bytes]]]  # path to bytes, reader


def plain(path: str) -> str:
  """Returns a path without '.' and '..'; '' for the top."""
  return '' if (path := posixpath.normpath(path)) == '.' else path


def open_archive(path: pathlib.Path, scratch: pathlib.Path) -> Members:
  """Lists an archive, which stays open as long as a reader is kept.

  Args:
    path: A .tar, .tgz or .zip.
    scratch: Folder for the content of a .tgz while it is in use.

  Returns:
    Path in the archive to the size in bytes and a function that reads it, in
    any thread. Hidden files and folders, as a Mac adds them, are left out.

  Raises:
    UserError: It is damaged or no archive.
  """
  try:
    if path.name.endswith(_ZIP):
      return _zip_members(path)
    if path.name.endswith(_TGZ):
      return _tar_members(_unzipped(path, scratch))
    if path.name.endswith(_TAR):
      return _tar_members(path.open('rb'))
  except DAMAGE as error:
    raise UserError(f'{path} cannot be read ({error}). {_REMEDY}') from error
  raise UserError(
    f'{path} is neither a folder nor a .tar, .tgz or .zip archive.'
  )


def _zip_members(path: pathlib.Path) -> Members:
  archive = zipfile.ZipFile(path)  # reads under a lock, checks each CRC

  def reader(info):
    return lambda: archive.read(info)

  return {
    plain(info.filename): (info.file_size, reader(info))
    for info in archive.infolist()
    if not info.is_dir() and not _is_hidden(info.filename)
  }


def _tar_members(archive: BinaryIO) -> Members:
  def reader(info):
    def read():
      # At a place, not at the position that all threads would share. Linux
      # gives 2 GiB at a time.
      parts, done = [], 0
      while done < info.size:
        place = info.offset_data + done
        part = os.pread(archive.fileno(), info.size - done, place)
        if not part:
          raise EOFError('the archive ends within this file')
        parts.append(part)
        done += len(part)
      return b''.join(parts)

    return read

  return {
    plain(info.name): (info.size, reader(info))
    for info in tarfile.TarFile(fileobj=archive).getmembers()
    if info.isreg() and not _is_hidden(info.name)
  }


def _unzipped(path: pathlib.Path, scratch: pathlib.Path) -> BinaryIO:
  """Unzips into a file without a name, which is gone with the process."""
  logging.info('Unzipping %s to read it in any order.', path)
  target = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
  with gzip.open(path) as source:
    shutil.copyfileobj(source, target, 1 << 20)
  target.flush()  # pread passes the buffer by
  target.seek(0)
  return target


def _is_hidden(name: str) -> bool:
  """Whether a file, or a folder that it lies in, is hidden."""
  return any(part.startswith('.') for part in plain(name).split('/'))


def verify(path: pathlib.Path, checksum: str) -> None:
  """Checks a file against its published checksum.

  Args:
    path: The file.
    checksum: 'md5:…' or 'sha1:…', hexadecimal; '' is not checked.

  Raises:
    UserError: It is another file.
  """
  if not checksum:
    return
  algorithm, _, expected = checksum.partition(':')
  logging.info('Verifying %s (%.1f MB).', path, path.stat().st_size / 1e6)
  with path.open('rb') as stream:
    got = hashlib.file_digest(stream, algorithm).hexdigest()
  if got != expected:
    raise UserError(
      f'{path} is not the published file: its {algorithm} is {got}, expected '
      f'{expected}. {_REMEDY}'
    )
