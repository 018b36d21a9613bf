"""PASCAL VOC 2012 segmentation, with the augmented training split.

`trainaug` is what the paper trains on: VOC train plus the images that SBD
annotated later, without VOC val. It is read here from its common PNG form, the
folder SegmentationClassAug.
"""

import pathlib
from collections.abc import Sequence

import tensorflow_datasets as tfds

from emanet_jax.data import checks
from emanet_jax.data.datasets import base
from emanet_jax.data.spec import DatasetSpec, Item
from emanet_jax.errors import UserError

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


def voc_color(label: int) -> tuple[int, int, int]:
  """Returns VOC's colour of a label: its bits, dealt to R, G, B in turn."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (label >> (3 * (bit // 3) + channel) & 1) << (
        7 - bit // 3
      )
  return tuple(color)


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
    'from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and unpack it; the '
    'manual directory holds VOCdevkit/VOC2012 with JPEGImages, '
    'SegmentationClass and ImageSets/Segmentation. The split trainaug also '
    'needs SegmentationClassAug (12031 PNG files) beside SegmentationClass.'
  ),
)


class Builder(base.SegmentationBuilder, skip_registration=True):
  """The official VOCdevkit layout."""

  name = 'voc2012'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = SPEC.download

  def find(self, manual_dir: pathlib.Path) -> dict[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    root = _find_root(manual_dir)
    ids = {}
    for split in ('train', 'val', 'trainval'):
      listed = root / 'ImageSets' / 'Segmentation' / f'{split}.txt'
      if listed.is_file():
        ids[split] = _read_ids(listed)
    found = {s: _items(root, i, 'SegmentationClass') for s, i in ids.items()}
    # A further source of trainaug (SBD's own archive) would be chosen here.
    if (root / 'SegmentationClassAug').is_dir():
      aug = _trainaug_ids(root, ids.get('val'))
      found['trainaug'] = _items(root, aug, 'SegmentationClassAug')
    elif 'train' in found:
      # All of trainaug that VOC itself has; whoever uses it is told of the gap.
      found['trainaug'] = found['train']
    for items in found.values():
      checks.check_items(SPEC, items)
    return found


def _find_root(manual_dir: pathlib.Path) -> pathlib.Path:
  candidates = (
    manual_dir / 'VOCdevkit' / 'VOC2012',
    manual_dir / 'VOC2012',
    manual_dir,
  )
  for root in candidates:
    if (root / 'JPEGImages').is_dir():
      return root
  raise UserError(
    f'{manual_dir} holds no VOCdevkit/VOC2012/JPEGImages. {SPEC.download}'
  )


def _read_ids(listed: pathlib.Path) -> list[str]:
  # Some published lists name both files of a line instead of the id.
  lines = listed.read_text().splitlines()
  return [pathlib.Path(line.split()[0]).stem for line in lines if line.strip()]


def _trainaug_ids(root: pathlib.Path, val: list[str] | None) -> list[str]:
  for folder in ('SegmentationAug', 'Segmentation'):
    for name in ('train_aug.txt', 'trainaug.txt'):
      listed = root / 'ImageSets' / folder / name
      if listed.is_file():
        return _read_ids(listed)
  if val is None:
    raise UserError(
      f'{root}/ImageSets/Segmentation/val.txt does not exist, but is needed '
      'to keep the validation images out of trainaug. Unpack '
      'VOCtrainval_11-May-2012.tar again, or put the list trainaug.txt into '
      f'{root}/ImageSets/SegmentationAug.'
    )
  labels = (root / 'SegmentationClassAug').glob('*.png')
  return sorted({path.stem for path in labels} - set(val))


def _items(root: pathlib.Path, ids: list[str], labels: str) -> list[Item]:
  return [
    Item(
      id=i,
      image=root / 'JPEGImages' / f'{i}.jpg',
      label=root / labels / f'{i}.png',
    )
    for i in ids
  ]
