"""COCO-Stuff on all of COCO 2017, as pixel maps of things and stuff.

The classes are those of COCO-Stuff 10k, the photos of its splits are others: do
not compare scores. A map's values are the publisher's ids less one, 255 is
void.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.datasets import coco_stuff10k
from emanet_jax.data.reading import (
  builder,
  checks,
  label_table,
  labels,
  two_folders,
)
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError

_ROOTS = ('', 'coco_stuff164k/', 'coco/', 'dataset/')

_TABLE = label_table.make_table(
  {i - 1: c for c, i in enumerate(coco_stuff10k.IDS)}, void=(255,)
)

SPEC = DatasetSpec(
  name='coco_stuff164k',
  classes=coco_stuff10k.CLASSES,
  palette=coco_stuff10k.PALETTE,
  num_examples={'train': 118287, 'val': 5000},
  homepage='https://github.com/nightrome/cocostuff',
  citation=coco_stuff10k.SPEC.citation,
  licence=coco_stuff10k.SPEC.licence,
  download=(
    'Get train2017.zip (18 GB) and val2017.zip (1 GB) from '
    'http://images.cocodataset.org/zips/ and stuffthingmaps_trainval2017.zip '
    '(659 MB) from http://calvin.inf.ed.ac.uk/wp-content/uploads/data/'
    'cocostuffdataset/; the manual directory holds the archives, or what they '
    'unpack to: photos in images/{train2017,val2017} or {train2017,val2017}, '
    'maps in annotations/{train2017,val2017}, in '
    'stuffthingmaps/{train2017,val2017} or beside the photos.'
  ),
  checksums={
    'train2017.zip': 'md5:cced6f7f71b7629ddf16f17bbcfab6b2',
    'val2017.zip': 'md5:442b8da7639aecaf257c1dceb8ba8c80',
    'stuffthingmaps_trainval2017.zip': '',
  },
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The archives, or any of the usual ways of unpacking them."""

  name = 'coco_stuff164k'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits whose photos are on disk; see the base class."""
    found = {}
    for split in SPEC.num_examples:
      photos = _folder(files, ('images/', ''), split, '.jpg')
      if photos is None:
        continue
      maps = _folder(files, ('annotations/', 'stuffthingmaps/', ''), split)
      items = two_folders.find_pairs(
        files, photos, maps or f'annotations/{split}2017'
      )
      found[split] = [item for item in items if not _is_converted(item.id)]
      checks.check_items(SPEC, found[split])
    if not found:
      raise UserError(
        f'{files.root} holds photos neither in train2017 nor in val2017. '
        f'{SPEC.download}'
      )
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads a map as class indices, uint8 [h, w]."""
    label = labels.read_index_png(file)
    return label_table.translate(label, _TABLE, file.where)


def _folder(
  files: Files, kinds: Iterable[str], split: str, end: str = '.png'
) -> str | None:
  """The first of a split's usual folders that holds such files."""
  for root in _ROOTS:
    for kind in kinds:
      folder = f'{root}{kind}{split}2017'
      stems = (file.stem for file in files.walk(folder, (end,)))
      if not all(map(_is_converted, stems)):
        return folder
  return None


def _is_converted(name: str) -> bool:
  """Whether mmsegmentation wrote it, beside the original and renumbered."""
  return name.endswith('_labelTrainIds')
