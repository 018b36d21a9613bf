"""Cityscapes: street scenes of 2048×1024 pixels, 19 classes.

The fine annotations. Their labelIds (0..33) become trainIds, the 19 classes
that are scored; the other labelIds are ignored. Predictions for the evaluation
server are in labelIds again: see `LABEL_IDS`. The archive's labels of the test
split mark nothing but the car and the border: that split has no labels here.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

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

# By trainId: name, labelId, the publisher's colour.
_CLASSES = (
  ('road', 7, (128, 64, 128)),
  ('sidewalk', 8, (244, 35, 232)),
  ('building', 11, (70, 70, 70)),
  ('wall', 12, (102, 102, 156)),
  ('fence', 13, (190, 153, 153)),
  ('pole', 17, (153, 153, 153)),
  ('traffic light', 19, (250, 170, 30)),
  ('traffic sign', 20, (220, 220, 0)),
  ('vegetation', 21, (107, 142, 35)),
  ('terrain', 22, (152, 251, 152)),
  ('sky', 23, (70, 130, 180)),
  ('person', 24, (220, 20, 60)),
  ('rider', 25, (255, 0, 0)),
  ('car', 26, (0, 0, 142)),
  ('truck', 27, (0, 0, 70)),
  ('bus', 28, (0, 60, 100)),
  ('train', 31, (0, 80, 100)),
  ('motorcycle', 32, (0, 0, 230)),
  ('bicycle', 33, (119, 11, 32)),
)

LABEL_IDS = tuple(label_id for _, label_id, _ in _CLASSES)  # by trainId

_TABLE = label_table.make_table(
  {label_id: index for index, label_id in enumerate(LABEL_IDS)},
  void=set(range(34)) - set(LABEL_IDS),
)

SPEC = DatasetSpec(
  name='cityscapes',
  classes=tuple(name for name, _, _ in _CLASSES),
  palette=tuple(color for _, _, color in _CLASSES),
  num_examples={'train': 2975, 'val': 500, 'test': 1525},
  homepage='https://www.cityscapes-dataset.com/',
  citation="""@inproceedings{Cordts2016Cityscapes,
  author = {Cordts, Marius and Omran, Mohamed and Ramos, Sebastian and
            Rehfeld, Timo and Enzweiler, Markus and Benenson, Rodrigo and
            Franke, Uwe and Roth, Stefan and Schiele, Bernt},
  title = {The {Cityscapes} Dataset for Semantic Urban Scene Understanding},
  booktitle = {Proc. of the {IEEE} Conference on Computer Vision and Pattern
               Recognition (CVPR)},
  year = {2016}}""",
  licence='Its own terms, after registration; for non-commercial use.',
  download=(
    'Get leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip '
    '(241 MB) from https://www.cityscapes-dataset.com/downloads/ after '
    'registration; the manual directory holds both archives or what they '
    'unpack to, leftImg8bit/{train,val,test} and gtFine/{train,val,test}.'
  ),
  checksums={
    'leftImg8bit_trainvaltest.zip': 'md5:0a6e97e94b616a514066c9e2adb0c97f',
    'gtFine_trainvaltest.zip': 'md5:4237c19de34c8a376e9ba46b495d6f66',
  },
  unlabelled=('test',),
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The official layout, with a folder for each city."""

  name = 'cityscapes'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits whose photos are on disk; see the base class."""
    photos = _folder(files, 'leftImg8bit')
    annotations = _folder(files, 'gtFine')
    found = {}
    for split in SPEC.num_examples:
      if not files.holds(f'{photos}/{split}'):
        continue
      found[split] = two_folders.find_pairs(
        files,
        f'{photos}/{split}',
        f'{annotations}/{split}',
        photo_ends=('_leftImg8bit.png',),
        label_end='_gtFine_labelIds.png',
      )
      if split in SPEC.unlabelled:
        found[split] = [
          dataclasses.replace(item, label=None) for item in found[split]
        ]
      checks.check_items(SPEC, found[split])
    if not found:
      raise UserError(
        f'{files.root} holds none of leftImg8bit/train, val and test. '
        f'{SPEC.download}'
      )
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads labelIds as trainIds, uint8 [h, w]."""
    label = labels.read_index_png(file)
    return label_table.translate(label, _TABLE, file.where)


def _folder(files: Files, name: str) -> str:
  return files.first(name, f'cityscapes/{name}') or name
