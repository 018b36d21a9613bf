"""Files that grow, in a bucket, which only takes whole ones."""

import contextlib
import tempfile
from pathlib import Path

from etils import epath

from emanet_jax.runtime import atomic


class GrowingFile:
  """Stands in for a text file that is open to append to.

  Its text is kept here, and written whole at each flush.
  """

  def __init__(self, path: epath.Path):
    """Reads what is there.

    Args:
      path: The file in the bucket.
    """
    self._path, self._text = path, ''
    with contextlib.suppress(FileNotFoundError):
      self._text = path.read_text()

  def write(self, text: str) -> None:
    """Appends text."""
    self._text += text

  def flush(self) -> None:
    """Writes the file."""
    atomic.write(self._path, self._text)

  def close(self) -> None:
    """Does nothing: what counts was flushed."""


class UploadedFolder:
  """A folder of this machine, whose files are copied to a bucket.

  Attributes:
    path: Of the folder on this machine.
  """

  def __init__(self, target: epath.Path):
    """Makes an empty folder.

    Args:
      target: The folder in the bucket.
    """
    self._scratch, self._target = tempfile.TemporaryDirectory(), target
    self.path = Path(self._scratch.name)

  def upload(self) -> None:
    """Copies the files as they are now."""
    for file in sorted(self.path.iterdir()):
      atomic.write(self._target / file.name, file.read_bytes())

  def close(self) -> None:
    """Copies the files once more and removes those here; may be repeated."""
    if self.path.exists():
      self.upload()
      self._scratch.cleanup()
