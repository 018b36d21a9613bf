"""Which photo of a user's folder goes with which mask, and in which split."""

import csv
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence

from absl import logging

from emanet_jax.data.class_list import listed
from emanet_jax.data.files import File, Files
from emanet_jax.data.spec import Item
from emanet_jax.errors import UserError

_LOSSY = ('jpg', 'jpeg', 'webp')
_SUFFIXES = (*_LOSSY, 'png', 'bmp', 'tif', 'tiff')
_PHOTO_FOLDERS = ('images', 'JPEGImages')
_MASK_FOLDERS = ('masks', 'SegmentationClassPNG', 'SegmentationClass')
_LIST_FOLDERS = ('', 'splits/', 'ImageSets/Segmentation/')
_HEADERS = [
  [photo, mask]
  for photo in ('image', 'img', 'photo')
  for mask in ('mask', 'label', 'annotation')
]
_SPLITS = {
  'train': 'train',
  'val': 'val',
  'valid': 'val',
  'validation': 'val',
  'test': 'test',
}
_UNDIVIDED = 'default'  # the one list of CVAT's exports

Pair = tuple[str, File | None, File | None]  # id, photo, mask
Tree = Mapping[str, File]  # by path


def read_tree(files: Files) -> Tree:
  """Returns all files by path, without a folder that holds everything."""
  # A Mac spells ä as two characters, lists mostly as one.
  tree = {_plain(file.path): file for file in files.walk('')}
  while len({path.partition('/')[0] for path in tree}) == 1 and all(
    '/' in path for path in tree
  ):
    tree = {path.partition('/')[2]: file for path, file in tree.items()}
  return tree


def find_pairs(tree: Tree, where: str) -> dict[str, list[Item]]:
  """Lists photos with their masks.

  Args:
    tree: From `read_tree`.
    where: Of the folder, for messages.

  Returns:
    Split name to examples, in the order of the list, or by name.

  Raises:
    UserError: A photo or mask is missing, or two could be meant.
  """
  photos = _by_name(tree, _PHOTO_FOLDERS)
  masks = _by_name(tree, _MASK_FOLDERS)
  pairs = {
    split: [
      _listed_pair(row, tree, photos, masks) for row in _rows(file, photos)
    ]
    for split, file in _lists(tree).items()
  }
  if not pairs:
    pairs = _by_folder(
      [(n, photos.get(n), masks.get(n)) for n in sorted({*photos, *masks})]
    )
  if _UNDIVIDED in pairs:
    every = sorted(pairs[_UNDIVIDED], key=lambda pair: pair[0])
    logging.log_first_n(  # The folder is looked through twice.
      logging.INFO,
      'Nothing says which photos of %s are for training: of %d, every tenth by '
      'name is for validation.',
      1,
      where,
      len(every),
    )
    train = [pair for i, pair in enumerate(every) if i % 10]
    pairs = {'train': train, 'val': every[::10]}
  _check_pairs([pair for some in pairs.values() for pair in some], where)
  return {
    split: [Item(*pair) for pair in pairs[split]]
    for split in ('train', 'val', 'test')
    if pairs.get(split)
  }


def _plain(path: str) -> str:
  path = unicodedata.normalize('NFC', path.strip().replace('\\', '/'))
  return posixpath.normpath(path).lstrip('/')


def _split_suffix(path: str) -> tuple[str, str]:
  """A path without the suffix of an image, and the suffix in lower case."""
  stem, _, suffix = path.rpartition('.')
  if suffix.lower() in _SUFFIXES:
    return stem, suffix.lower()
  return path, ''


def _by_name(tree: Tree, folders: Sequence[str]) -> dict[str, File]:
  """Images of the first of the folders, by path in it without suffix."""
  for folder in folders:
    found = {}
    for path, file in tree.items():
      stem, suffix = _split_suffix(path)
      if suffix and stem.startswith(f'{folder}/'):
        found.setdefault(stem.removeprefix(f'{folder}/'), []).append(file)
    twice = [
      ' and '.join(f.path for f in f2) for f2 in found.values() if f2[1:]
    ]
    if twice:
      raise UserError(
        f'Two images have one name: {listed(twice)}. Remove or rename one of '
        'each two, with its mask.'
      )
    if found:
      return {name: some[0] for name, some in found.items()}
  return {}


def _lists(tree: Tree) -> dict[str, File]:
  splits = {**_SPLITS, _UNDIVIDED: _UNDIVIDED}
  for folder in _LIST_FOLDERS:
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
      found.pop(_UNDIVIDED, None)
    if found:
      return found
  return {}


def _rows(file: File, photos: Mapping[str, File]) -> list[list[str]]:
  """The lines of a list: one name, or a photo and a mask, each."""
  lines = [line for line in file.text().splitlines() if line.strip()]
  if file.path.lower().endswith('.txt'):
    rows = [_columns(line, photos) for line in lines]
  else:
    marks = [mark for mark in '\t;,' if lines and mark in lines[0]]
    rows = list(csv.reader(lines, delimiter=(marks or [','])[0]))
  if rows and ' '.join(rows[0]).lower().split() in _HEADERS:
    rows = rows[1:]
  for row in rows:
    if len(row) > 2:
      raise UserError(
        f'{file.where} has a line of {len(row)} entries, {listed(row)}; '
        'expected a name, or a photo and a mask. Names that hold blanks need '
        'tabs between them in .txt, those that hold commas quotes in .csv.'
      )
  return rows


def _columns(line: str, photos: Mapping[str, File]) -> list[str]:
  """The entries of a line of text; a photo's name may hold blanks."""
  if '\t' in line:
    return line.split('\t')
  words = line.split()
  if _name(line) in photos or not _split_suffix(words[0])[1]:
    return [line]
  return words


def _name(entry: str) -> str:
  """A photo's name as `_by_name` has it, from a name, file name or path."""
  name = _split_suffix(_plain(entry))[0]
  for folder in _PHOTO_FOLDERS:
    name = name.removeprefix(f'{folder}/')
  return name


def _listed_pair(
  row: Sequence[str],
  tree: Tree,
  photos: Mapping[str, File],
  masks: Mapping[str, File],
) -> Pair:
  if len(row) == 1:
    name = _name(row[0])
    return name, photos.get(name), masks.get(name)
  photo, mask = map(_plain, row)
  return _split_suffix(photo)[0], tree.get(photo), tree.get(mask)


def _by_folder(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
  """Divides by the first folder, where that is a split's for all."""
  found = {}
  for name, photo, mask in pairs:
    folder, _, rest = name.partition('/')
    if not rest or folder.lower() not in _SPLITS:
      return {_UNDIVIDED: list(pairs)}
    split = _SPLITS[folder.lower()]
    found.setdefault(split, []).append((rest, photo, mask))
  return found


def _check_pairs(pairs: Sequence[Pair], where: str) -> None:
  faults = {
    'there is no photo for': [n for n, photo, _ in pairs if photo is None],
    'there is no mask for': [n for n, _, mask in pairs if mask is None],
    'masks cannot be JPEG or WebP, which change their values': [
      mask.path
      for _, _, mask in pairs
      if mask and _split_suffix(mask.path)[1] in _LOSSY
    ],
  }
  for fault, entries in faults.items():
    if entries:
      raise UserError(
        f'{where}: {fault}: {listed(sorted(entries))}. The two have one name, '
        'in images/ and masks/, or are listed as photo,mask in train.csv and '
        'val.csv. Add what is missing (masks as PNG), or remove the rest.'
      )
