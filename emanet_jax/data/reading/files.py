"""Published files, read alike from unpacked folders and from archives.

A publisher's archives and what they unpack to hold the same paths; `Files` is
one tree over all that lies in the user's folder, and unpacks nothing.
"""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

from emanet_jax.data.reading import archives
from emanet_jax.errors import UserError


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
    except RuntimeError as error:  # zipfile's, NotImplementedError included
      raise UserError(
        f'{self.where} cannot be read ({error}): it is compressed or encrypted '
        'in a way that is not supported. Unpack the archive and give the '
        'folder.'
      ) from error
    except (OSError, *archives.DAMAGE) as error:
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
    checksums: Path of an archive or file in the folder → 'md5:…', 'sha1:…' or
      '' where none is published. Archives named here are opened, others are
      not: a folder of downloads holds more than data sets.
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
      archives.verify(root, checksums.get(root.name, ''))
      self._sources = [_Archive(root, scratch)]
      return
    self._sources.append(_Folder(root))
    for name, checksum in checksums.items():
      path = root / name
      if path.is_file():
        archives.verify(path, checksum)
        if name.endswith(archives.SUFFIXES):
          self._sources.append(_Archive(path, scratch))

  def get(self, path: str) -> File:
    """Returns the file at a path: the folder's own, else an archive's."""
    path = archives.plain(path)
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
    folder = archives.plain(folder)
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
    folder = archives.plain(folder)
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
      folders[:] = sorted(f for f in folders if not f.startswith('.'))
      relative = pathlib.Path(place).relative_to(self._root)
      for name in sorted(names):
        if not name.startswith('.'):  # such as ._photo.jpg, from a Mac
          yield self.get((relative / name).as_posix())


class _Archive:
  """The members of an archive, read where they lie."""

  def __init__(self, path: pathlib.Path, scratch: pathlib.Path):
    self._path = path
    self._members = archives.open_archive(path, scratch)

  def get(self, path: str) -> File:
    size, read = self._members.get(path, (None, None))
    return File(path, f'{self._path}: {path}', size, read)

  def walk(self, folder: str) -> Iterator[File]:
    prefix = f'{folder}/' if folder else ''
    for path in self._members:
      if path.startswith(prefix):
        yield self.get(path)
