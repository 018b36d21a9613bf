"""PASCAL VOC 2012 segmentation, with the augmented training split.

`trainaug` is what the paper trains on: VOC train plus the images that SBD
annotated later, without VOC val. Where both annotated an image, VOC's label is
taken, as in SegmentationClassAug, the common PNG form of the same labels.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import builder, checks, labels, voc_layout
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.reading.palette import voc_color
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError

_SBD = 'benchmark_RELEASE/dataset'

CLASSES = (
  'background',
  'aeroplane',
  'bicycle',
  'bird',
  'boat',
  'bottle',
  'bus',
  'car',
  'cat',
  'chair',
  'cow',
  'diningtable',
  'dog',
  'horse',
  'motorbike',
  'person',
  'pottedplant',
  'sheep',
  'sofa',
  'train',
  'tvmonitor',
)


SPEC = DatasetSpec(
  name='voc2012',
  classes=CLASSES,
  palette=tuple(voc_color(label) for label in range(len(CLASSES))),
  num_examples={
    'train': 1464,
    'val': 1449,
    'trainval': 2913,
    'trainaug': 10582,
  },
  homepage='http://host.robots.ox.ac.uk/pascal/VOC/voc2012/',
  citation="""@misc{pascal-voc-2012,
  author = {Everingham, M. and Van Gool, L. and Williams, C. K. I. and
            Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2012
           {(VOC2012)} {R}esults}}""",
  licence='Photos are from flickr under its terms of use; for research only.',
  download=(
    'Get VOCtrainval_11-May-2012.tar (md5 6cd6e144f989b92b3379bac3b3de84fd) '
    'from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and, for the split '
    'trainaug, benchmark.tgz of SBD (md5 82b4d87ceb2ed10f6038a1cba92111cb) '
    'from http://home.bharathh.info/pubs/codes/SBD/download.html; the manual '
    'directory holds both archives or what they unpack to, '
    'VOCdevkit/VOC2012 and benchmark_RELEASE/dataset. The folder '
    'SegmentationClassAug (or its .zip) serves instead of SBD.'
  ),
  checksums={
    'VOCtrainval_11-May-2012.tar': 'md5:6cd6e144f989b92b3379bac3b3de84fd',
    'benchmark.tgz': 'md5:82b4d87ceb2ed10f6038a1cba92111cb',
    'SegmentationClassAug.zip': '',  # several are about
  },
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The official VOCdevkit layout."""

  name = 'voc2012'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    root = voc_layout.find_root(files, 'VOC2012', SPEC)
    photos, own = f'{root}/JPEGImages', f'{root}/SegmentationClass'
    ids = {
      split: voc_layout.read_ids(listed)
      for split in ('train', 'val', 'trainval')
      if (listed := voc_layout.list_file(files, root, split)).size
    }
    found = {split: _items(files, i, photos, own) for split, i in ids.items()}
    aug = files.first(f'{root}/SegmentationClassAug', 'SegmentationClassAug')
    if aug:
      chosen = _listed(files, root)
      if chosen is None:
        pngs = {file.stem for file in files.walk(aug, ('.png',))}
        chosen = _without_val(pngs, ids, root)
      found['trainaug'] = _items(files, chosen, photos, aug)
    elif files.holds(_SBD):
      listed = [
        voc_layout.read_ids(files.get(f'{_SBD}/{s}.txt'))
        for s in ('train', 'val')
      ]
      chosen = _without_val({*listed[0], *listed[1]}, ids, root)
      of_sbd = set(chosen) - set(ids['train'])
      found['trainaug'] = [
        Item(
          id=i,
          image=files.get(f'{photos}/{i}.jpg'),
          label=files.get(
            f'{_SBD}/cls/{i}.mat' if i in of_sbd else f'{own}/{i}.png'
          ),
        )
        for i in chosen
      ]
    for items in found.values():
      checks.check_items(SPEC, items)
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads VOC's palette PNG or SBD's `.mat`, both with VOC's indices."""
    if file.path.endswith('.mat'):
      label = labels.read_mat(file, 'GTcls', 'Segmentation')
      return np.asarray(label, np.uint8)
    return labels.read_index_png(file)


def _listed(files: Files, root: str) -> list[str] | None:
  for folder in ('SegmentationAug', 'Segmentation'):
    for name in ('train_aug.txt', 'trainaug.txt'):
      listed = files.get(f'{root}/ImageSets/{folder}/{name}')
      if listed.size:
        return voc_layout.read_ids(listed)
  return None


def _without_val(
  annotated: Iterable[str], ids: Mapping[str, list[str]], root: str
) -> list[str]:
  """The ids of trainaug: all annotated and VOC train, but never VOC val."""
  for split in ('train', 'val'):
    if split not in ids:
      raise UserError(
        f'{root}/ImageSets/Segmentation/{split}.txt is absent or empty, but '
        'needed to keep the validation images out of trainaug. Unpack '
        'VOCtrainval_11-May-2012.tar again, or put the list trainaug.txt into '
        f'{root}/ImageSets/SegmentationAug.'
      )
  return sorted({*annotated, *ids['train']} - set(ids['val']))


def _items(
  files: Files, ids: Sequence[str], photos: str, annotations: str
) -> list[Item]:
  return [
    Item(
      id=i,
      image=files.get(f'{photos}/{i}.jpg'),
      label=files.get(f'{annotations}/{i}.png'),
    )
    for i in ids
  ]
