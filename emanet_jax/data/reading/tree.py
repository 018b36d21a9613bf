"""The files of a user's own folder by path, and how they are named."""

import posixpath
import unicodedata
from collections.abc import Mapping

from emanet_jax.data.reading.files import File, Files

Tree = Mapping[str, File]  # by path


def read_tree(files: Files) -> Tree:
  """Returns all files by path, without a folder that holds everything."""
  # A Mac spells ä as two characters, lists mostly as one.
  tree = {plain(file.path): file for file in files.walk('')}
  while len({path.partition('/')[0] for path in tree}) == 1 and all(
    '/' in path for path in tree
  ):
    tree = {path.partition('/')[2]: file for path, file in tree.items()}
  return tree


def plain(path: str) -> str:
  """A path as the tree has it, however a list spells it."""
  path = unicodedata.normalize('NFC', path.strip().replace('\\', '/'))
  return posixpath.normpath(path).lstrip('/')
