"""Published files, read alike from unpacked folders and from archives.

A publisher's archives and what they unpack to hold the same paths; `Files` is
one tree over all that lies in the user's folder, and unpacks nothing.
"""

import dataclasses
import gzip
import hashlib
import os
import pathlib
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from absl import logging

from emanet_jax.errors import UserError

_TAR, _TGZ, _ZIP = ('.tar',), ('.tgz', '.tar.gz'), ('.zip',)
_DAMAGE = (
  *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
  *(zlib.error, EOFError),
)
_DAMAGED = (
  'It was cut short or damaged on its way: get it again, or give the folder '
  'that a complete copy unpacks to.'
)


@dataclasses.dataclass(frozen=True)
class File:
  """A file of the tree, which need not exist.

  Attributes:
    path: Its place in the tree, with '/' between the parts.
    where: Where it lies, for messages: a path, or an archive and a path in it.
    size: Bytes; None where there is no such file.
  """

  path: str
  where: str
  size: int | None = None
  _read: Callable[[], bytes] | None = dataclasses.field(
    default=None, repr=False, compare=False
  )

  @property
  def stem(self) -> str:
    """The name without folders and last suffix."""
    return pathlib.PurePosixPath(self.path).stem

  def read(self) -> bytes:
    """Returns the content; safe in any thread.

    Raises:
      UserError: The file is absent, empty, unreadable or damaged.
    """
    if self._read is None:
      raise UserError(f'{self.where} does not exist.')
    try:
      content = self._read()
    except (OSError, *_DAMAGE) as error:
      raise UserError(
        f'{self.where} cannot be read ({error}). Give this user the right to '
        'read it, or restore the file.'
      ) from error
    if not content:
      raise UserError(
        f'{self.where} is empty (0 bytes): a copy or an unpacking was cut '
        'short. Restore it.'
      )
    return content

  def text(self) -> str:
    """Returns the content as UTF-8 text, without a byte order mark.

    Raises:
      UserError: As `read`, or it is no text.
    """
    try:
      return self.read().decode('utf-8-sig')
    except UnicodeDecodeError as error:
      raise UserError(
        f'{self.where} is no UTF-8 text ({error}). Save it as UTF-8.'
      ) from error


class Files:
  """The files of a folder or archive, and of the archives in the folder.

  Args:
    root: The user's folder, or one archive.
    checksums: Name of an archive or file directly in the folder → 'md5:…',
      'sha1:…' or '' where none is published. Archives named here are opened,
      others are not: a folder of downloads holds more than data sets.
    scratch: Folder for the content of .tgz archives while they are in use.

  Raises:
    UserError: An archive is damaged, or is not the published one.
  """

  def __init__(
    self,
    root: pathlib.Path,
    checksums: Mapping[str, str],
    scratch: pathlib.Path,
  ):
    self.root = root
    self._sources: list[_Folder | _Archive] = []
    if root.is_file():
      verify(root, checksums.get(root.name, ''))
      self._sources = [_open_archive(root, scratch)]
      return
    self._sources.append(_Folder(root))
    for name, checksum in checksums.items():
      path = root / name
      if path.is_file():
        verify(path, checksum)
        if name.endswith(_TAR + _TGZ + _ZIP):
          self._sources.append(_open_archive(path, scratch))

  def get(self, path: str) -> File:
    """Returns the file at a path: the folder's own, else an archive's."""
    path = _plain(path)
    files = (source.get(path) for source in self._sources)
    for file in files:
      if file.size is not None:
        return file
    return self._sources[0].get(path)

  def walk(
    self, folder: str, suffixes: Sequence[str] = ('',)
  ) -> Iterator[File]:
    """Lists the files below a folder, at any depth, sorted by path.

    Args:
      folder: A path in the tree; '' is all of it.
      suffixes: Lower-case ends of the names wanted; any case is found.
    """
    folder = _plain(folder)
    found: dict[str, File] = {}
    for source in reversed(self._sources):
      found |= {
        file.path: file
        for file in source.walk(folder)
        if file.path.lower().endswith(tuple(suffixes))
      }
    yield from (found[path] for path in sorted(found))

  def holds(self, folder: str) -> bool:
    """Whether there is a file below the folder."""
    folder = _plain(folder)
    return any(
      next(source.walk(folder), None) is not None for source in self._sources
    )

  def first(self, *folders: str) -> str | None:
    """Returns the first of the folders that holds a file, or None."""
    return next((folder for folder in folders if self.holds(folder)), None)


class _Folder:
  """What lies unpacked in a folder."""

  def __init__(self, root: pathlib.Path):
    self._root = root

  def get(self, path: str) -> File:
    place = self._root / path
    try:
      status = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
      if not place.is_symlink():
        return File(path, str(place))
      raise UserError(
        f'{place} is a link to {os.readlink(place)}, which does not exist. '
        'Restore that file, or replace the link by the file.'
      ) from None
    except OSError as error:
      raise UserError(
        f'{place}: {error.strerror}. Give this user access to it; where links '
        'go in a circle, replace them by the file.'
      ) from error
    if not stat.S_ISREG(status.st_mode):
      return File(path, str(place))
    return File(path, str(place), status.st_size, place.read_bytes)

  def walk(self, folder: str) -> Iterator[File]:
    top = self._root / folder
    seen: set[tuple[int, int]] = set()

    def unreadable(error):
      if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(
          f'{error.filename}: {error.strerror}. Give this user the right to '
          'read the folder.'
        ) from error

    for place, folders, names in os.walk(
      top, onerror=unreadable, followlinks=True
    ):
      status = os.stat(place)
      if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
        folders.clear()
        continue
      seen.add((status.st_dev, status.st_ino))
      folders.sort()
      relative = pathlib.Path(place).relative_to(self._root)
      for name in sorted(names):
        if not name.startswith('.'):  # such as ._photo.jpg, from a Mac
          yield self.get((relative / name).as_posix())


class _Archive:
  """The members of an archive, read where they lie."""

  def __init__(
    self, path: pathlib.Path, members: Mapping[str, tuple[int, Callable]]
  ):
    self._path = path
    self._members = members

  def get(self, path: str) -> File:
    size, read = self._members.get(path, (None, None))
    return File(path, f'{self._path}: {path}', size, read)

  def walk(self, folder: str) -> Iterator[File]:
    prefix = f'{folder}/' if folder else ''
    for path in self._members:
      if path.startswith(prefix):
        yield self.get(path)


def _open_archive(path: pathlib.Path, scratch: pathlib.Path) -> _Archive:
  try:
    if path.name.endswith(_ZIP):
      members = _zip_members(path)
    elif path.name.endswith(_TGZ):
      members = _tar_members(_unzipped(path, scratch))
    elif path.name.endswith(_TAR):
      members = _tar_members(os.open(path, os.O_RDONLY))
    else:
      raise UserError(
        f'{path} is neither a folder nor a .tar, .tgz or .zip archive.'
      )
  except _DAMAGE as error:
    raise UserError(f'{path} cannot be read ({error}). {_DAMAGED}') from error
  return _Archive(path, members)


def _zip_members(path: pathlib.Path) -> dict[str, tuple[int, Callable]]:
  archive = zipfile.ZipFile(path)  # reads under a lock, checks each CRC

  def reader(info):
    return lambda: archive.read(info)

  return {
    _plain(info.filename): (info.file_size, reader(info))
    for info in archive.infolist()
    if not info.is_dir() and not _is_hidden(info.filename)
  }


def _tar_members(descriptor: int) -> dict[str, tuple[int, Callable]]:
  def reader(info):
    def read():
      content = os.pread(descriptor, info.size, info.offset_data)
      if len(content) < info.size:
        raise EOFError('the archive ends within this file')
      return content

    return read

  with os.fdopen(os.dup(descriptor), 'rb') as stream:
    stream.seek(0)  # the copy shares its position with whoever wrote
    infos = tarfile.open(fileobj=stream, mode='r:').getmembers()  # noqa: SIM115
  return {
    _plain(info.name): (info.size, reader(info))
    for info in infos
    if info.isreg() and not _is_hidden(info.name)
  }


def _unzipped(path: pathlib.Path, scratch: pathlib.Path) -> int:
  """Unzips into a file without a name, gone with the process; returns it."""
  logging.info('Unzipping %s to read it in any order.', path)
  with (
    gzip.open(path) as source,
    tempfile.TemporaryFile(dir=scratch) as target,
  ):
    shutil.copyfileobj(source, target, 1 << 20)
    target.flush()
    return os.dup(target.fileno())


def _plain(path: str) -> str:
  return '' if (path := posixpath.normpath(path)) == '.' else path


def _is_hidden(name: str) -> bool:
  return pathlib.PurePosixPath(name).name.startswith('.')


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
      f'{expected}. {_DAMAGED}'
    )
