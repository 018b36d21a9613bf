"""Files that are there completely or not at all, whenever a run is killed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emanet_jax.runtime import places


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
  """Gives a temporary path, which becomes the file when all went well.

  Args:
    path: The file; its folder is made when absent.
  """
  path = places.as_path(path)
  if places.is_bucket(path):
    with tempfile.TemporaryDirectory() as folder:
      temporary = Path(folder, path.name)
      yield temporary
      write(path, temporary.read_bytes())
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write(
  path: str | os.PathLike[str], content: bytes | bytearray | str
) -> None:
  """Writes bytes, or text as UTF-8.

  Raises:
    UserError: It is in a bucket, which cannot be written to.
    OSError: It is of this machine, and cannot be written.
  """
  if isinstance(content, str):
    content = content.encode()
  if places.is_bucket(path):
    path = places.as_path(path)
    with places.telling_faults(path):
      path.write_bytes(content)  # a bucket puts all or nothing
    return
  with replacing(path) as temporary:
    temporary.write_bytes(content)
