"""Lists of the photos of each split, as text or tables."""

import csv
import re
from collections.abc import Container

from emanet_jax.data.reading.files import File
from emanet_jax.data.reading.images import split_suffix
from emanet_jax.data.reading.tree import Tree, plain
from emanet_jax.errors import UserError, listed

# What people call the splits.
SPLITS = {
  **dict.fromkeys(('train', 'training'), 'train'),
  **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
  **dict.fromkeys(('test', 'testing'), 'test'),
}
UNDIVIDED = 'default'  # the one list of CVAT's exports
PHOTO_FOLDERS = ('images', 'JPEGImages')

_FOLDERS = ('', 'splits/', 'ImageSets/Segmentation/')
_HEADERS = [
  [photo, mask]
  for photo in ('image', 'img', 'photo')
  for mask in ('mask', 'label', 'annotation')
]


def find_lists(tree: Tree) -> dict[str, File]:
  """Returns split name, or UNDIVIDED, to its list.

  Raises:
    UserError: Two files list one split.
  """
  splits = {**SPLITS, UNDIVIDED: UNDIVIDED}
  for folder in _FOLDERS:
    found = {}
    for path, file in tree.items():
      stem, _, suffix = path.removeprefix(folder).lower().rpartition('.')
      split = splits.get(stem)
      if not split or suffix not in ('csv', 'tsv', 'txt'):
        continue
      if split in found:
        raise UserError(
          f'{found[split].where} and {file.where} both list {split}: remove '
          'one of them.'
        )
      found[split] = file
    if len(found) > 1:
      found.pop(UNDIVIDED, None)
    if found:
      return found
  return {}


def read_rows(
  file: File, photos: Container[str], tree: Tree, where: str
) -> list[list[str]]:
  """Returns the lines of a list: one name, or a photo and a mask, each.

  Args:
    file: From `find_lists`.
    photos: Names of photos, see `photo_name`.
    tree: All files.
    where: Of the folder, for messages.

  Raises:
    UserError: A line has more entries.
  """
  lines = [line for line in file.text().splitlines() if line.strip()]
  if file.path.lower().endswith('.txt'):
    rows = [_columns(line, photos, tree) for line in lines]
  else:
    marks = [mark for mark in '\t;,' if lines and mark in lines[0]]
    rows = list(csv.reader(lines, delimiter=(marks or [','])[0]))
  if rows and ' '.join(rows[0]).lower().split() in _HEADERS:
    rows = rows[1:]
  for row in rows:
    if len(row) > 2:
      raise UserError(
        f'{file.where} has a line of {len(row)} entries, {listed(row)}; '
        f'expected a name, or the paths of a photo and a mask from {where} on. '
        'In .txt tabs or blanks divide them (names that hold blanks need a '
        'tab, unless both files are there); in .csv commas, semicolons or tabs '
        '(names that hold these need quotes).'
      )
  return rows


def photo_name(entry: str) -> str:
  """A photo's path in its folder without suffix, from however it is listed."""
  name = split_suffix(plain(entry))[0]
  for folder in PHOTO_FOLDERS:
    name = name.removeprefix(f'{folder}/')
  return name


def _columns(line: str, photos: Container[str], tree: Tree) -> list[str]:
  """The entries of a line of text; names may hold blanks."""
  if '\t' in line:
    return line.split('\t')
  line = line.strip()
  words = line.split()
  pairs = [
    [line[: blank.start()], line[blank.end() :]]
    for blank in re.finditer(r'\s+', line)
  ]
  there = [p for p in pairs if all(plain(part) in tree for part in p)]
  if len(there) == 1:
    return there[0]
  if photo_name(line) in photos or not split_suffix(words[0])[1]:
    return [line]
  return words
