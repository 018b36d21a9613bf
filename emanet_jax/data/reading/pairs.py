"""Which photo of a user's folder goes with which mask, and in which split."""

from collections.abc import Mapping, Sequence

from absl import logging

from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File
from emanet_jax.data.reading.images import LOSSY, split_suffix
from emanet_jax.data.reading.split_lists import (
  PHOTO_FOLDERS,
  SPLITS,
  UNDIVIDED,
  find_lists,
  photo_name,
  read_rows,
)
from emanet_jax.data.reading.tree import Tree, plain
from emanet_jax.errors import UserError, listed

_MASK_FOLDERS = ('masks', 'SegmentationClassPNG', 'SegmentationClass')

Pair = tuple[str, File | None, File | None]  # id, photo, mask


def find_splits(tree: Tree, where: str) -> dict[str, list[Item]]:
  """Lists photos with their masks.

  Args:
    tree: From `read_tree`.
    where: Of the folder, for messages.

  Returns:
    Split name to examples, in the order of the list, or by name; 'test' may be
    without any masks.

  Raises:
    UserError: A photo or mask is missing, two could be meant, or a photo is for
      training and in another split.
  """
  photos = _by_name(tree, PHOTO_FOLDERS)
  masks = _by_name(tree, _MASK_FOLDERS)
  pairs = {
    split: [
      _listed_pair(row, tree, photos, masks)
      for row in read_rows(file, photos, tree, where)
    ]
    for split, file in find_lists(tree).items()
  }
  if not pairs:
    names = sorted({*photos, *masks})
    pairs = _by_folder([(n, photos.get(n), masks.get(n)) for n in names], where)
  if UNDIVIDED in pairs:
    pairs = _divided(pairs[UNDIVIDED], where)
  every = [pair for some in pairs.values() for pair in some]
  photoless = [name for name, photo, _ in every if photo is None]
  _tell_missing('photo', photoless, where, PHOTO_FOLDERS, bool(photos))
  if not any(mask for _, _, mask in pairs.get('test', ())):
    every = [pair for s, some in pairs.items() if s != 'test' for pair in some]
  _check_masks(every, where, has_masks=bool(masks))
  found = {
    split: [Item(*pair) for pair in pairs[split]]
    for split in ('train', 'val', 'test')
    if pairs.get(split)
  }
  _check_apart(found, where)
  return found


def _by_name(tree: Tree, folders: Sequence[str]) -> dict[str, File]:
  """Images of the first of the folders, by path in it without suffix."""
  for folder in folders:
    found = {}
    for path, file in tree.items():
      stem, suffix = split_suffix(path)
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


def _listed_pair(
  row: Sequence[str],
  tree: Tree,
  photos: Mapping[str, File],
  masks: Mapping[str, File],
) -> Pair:
  if len(row) == 1:
    name = photo_name(row[0])
    return name, photos.get(name), masks.get(name)
  photo, mask = map(plain, row)
  return split_suffix(photo)[0], tree.get(photo), tree.get(mask, _absent(mask))


def _absent(path: str) -> File:
  """A mask that is listed, in a split that hence has masks."""
  return File(path, path)


def _by_folder(pairs: Sequence[Pair], where: str) -> dict[str, list[Pair]]:
  """Divides by the first folder, where these are named like splits."""
  folders = {name.rpartition('/')[0].partition('/')[0] for name, _, _ in pairs}
  splits = {folder for folder in folders if folder.lower() in SPLITS}
  if not splits:
    return {UNDIVIDED: list(pairs)}
  if others := sorted(folders - splits):
    raise UserError(
      f'{where}: {listed(sorted(splits))} are folders of splits, but there is '
      f'also {listed([folder or "no folder at all" for folder in others])}. '
      'Move all photos, with their masks, into train, val and test; or list '
      'those of each split in train.txt, val.txt and test.txt.'
    )
  found = {}
  for name, photo, mask in pairs:
    folder, _, rest = name.partition('/')
    found.setdefault(SPLITS[folder.lower()], []).append((rest, photo, mask))
  return found


def _divided(pairs: Sequence[Pair], where: str) -> dict[str, list[Pair]]:
  every = sorted(pairs, key=lambda pair: pair[0])
  logging.info(
    'Nothing says which photos of %s are for training: of %d, every tenth by '
    'name is for validation.',
    where,
    len(every),
  )
  train = [pair for i, pair in enumerate(every) if i % 10]
  return {'train': train, 'val': every[::10]}


def _check_masks(pairs: Sequence[Pair], where: str, *, has_masks: bool) -> None:
  unnamed = [name for name, _, mask in pairs if mask is None]
  _tell_missing('mask', unnamed, where, _MASK_FOLDERS, has_masks)
  without = [name for name, _, mask in pairs if mask.size is None]
  _tell_missing('mask', without, where, _MASK_FOLDERS, True)
  masks = [mask.path for _, _, mask in pairs]
  if lossy := [path for path in masks if split_suffix(path)[1] in LOSSY]:
    raise UserError(
      f'{where}: masks cannot be JPEG, WebP or of another kind that changes '
      f'their values: {listed(sorted(lossy))}. Export them again, as PNG.'
    )


def _tell_missing(
  kind: str,
  names: Sequence[str],
  where: str,
  folders: Sequence[str],
  found_any: bool,
) -> None:
  if not names:
    return
  looked = ', '.join(f'{folder}/' for folder in folders)
  none = '' if found_any else f' (looked into {looked}: no image there)'
  raise UserError(
    f'{where}: there is no {kind} for: {listed(sorted(names))}.{none} The two '
    'have one name, in images/ and masks/, or any names, such as photo.jpg and '
    'photo_mask.png, and are listed as photo,mask, with their paths from '
    f'{where} on, in train.csv and val.csv (or with a tab between them, in '
    '.txt). Add what is missing (masks as PNG), or remove the rest.'
  )


def _check_apart(found: Mapping[str, Sequence[Item]], where: str) -> None:
  train = {item.image.path for item in found.get('train', ())}
  for split in ('val', 'test'):
    paths = [item.image.path for item in found.get(split, ())]
    if shared := [path for path in paths if path in train]:
      raise UserError(
        f'{where}: {len(shared)} photo(s) are in train and in {split}: '
        f'{listed(shared)}. Scores on photos that were trained on mean '
        'nothing: remove each from one of the two.'
      )
