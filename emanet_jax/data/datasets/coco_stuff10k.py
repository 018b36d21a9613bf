"""COCO-Stuff 10k, version 1.1: 80 kinds of things and 91 of stuff.

The publisher's ids are 1..182; 11 of them were never annotated and are no
classes. Its colours come from a random order of MATLAB's, so that the palette
is VOC's colours of the ids instead.

The ids and names are those of COCO-Stuff 164k as well.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import (
  builder,
  checks,
  label_table,
  labels,
  voc_layout,
)
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.reading.palette import voc_color
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat,
traffic light, fire hydrant, stop sign, parking meter, bench, bird, cat, dog,
horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle,
wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant,
bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone,
microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush, banner, blanket, branch, bridge,
building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other,
ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile,
floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss,
mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic,
platform, playingfield, railing, railroad, river, road, rock, roof, rug,
salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs,
stone, straw, structural-other, table, tent, textile-other, towel, tree,
vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone,
wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other,
wood
"""
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}

CLASSES = tuple(name.strip() for name in _NAMES.split(','))
IDS = tuple(i for i in range(1, 183) if i not in _UNUSED)  # by class index
PALETTE = tuple(voc_color(i) for i in IDS)

_TABLE = label_table.make_table({i: c for c, i in enumerate(IDS)}, void=(0,))

SPEC = DatasetSpec(
  name='coco_stuff10k',
  classes=CLASSES,
  palette=PALETTE,
  num_examples={'train': 9000, 'test': 1000},
  homepage='https://github.com/nightrome/cocostuff10k',
  citation="""@inproceedings{caesar2018cvpr,
  author = {Caesar, Holger and Uijlings, Jasper and Ferrari, Vittorio},
  title = {{COCO-Stuff}: Thing and stuff classes in context},
  booktitle = {Computer vision and pattern recognition (CVPR), 2018 IEEE
               conference on},
  year = {2018}}""",
  licence='Annotations: CC BY 4.0; photos: from Flickr under its terms of use.',
  download=(
    'Get cocostuff-10k-v1.1.zip (2 GB) from http://calvin.inf.ed.ac.uk/'
    'wp-content/uploads/data/cocostuffdataset/cocostuff-10k-v1.1.zip; the '
    'manual directory holds it or what it unpacks to: images (*.jpg), '
    'annotations (*.mat) and imageLists (train.txt and test.txt).'
  ),
  checksums={'cocostuff-10k-v1.1.zip': ''},
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The publisher's layout."""

  name = 'coco_stuff10k'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits that are on disk; see the base class."""
    lists = files.first('coco_stuff10k/imageLists') or 'imageLists'
    root = lists.removesuffix('imageLists')
    found = {}
    for split in SPEC.num_examples:
      listed = files.get(f'{lists}/{split}.txt')
      if listed.size is not None:
        found[split] = [
          Item(
            id=i,
            image=_photo(files, root, split, i),
            label=files.get(f'{root}annotations/{i}.mat'),
          )
          for i in voc_layout.read_ids(listed)
        ]
        checks.check_items(SPEC, found[split])
    if not found:
      raise UserError(
        f'{files.root} holds neither imageLists/train.txt nor '
        f'imageLists/test.txt. {SPEC.download}'
      )
    return found

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads the field S of a MATLAB file, ids 0..182, as class indices."""
    values = np.asarray(labels.read_mat(file, 'S'))
    if values.ndim != 2 or values.dtype.kind not in 'iuf':
      raise UserError(
        f'{file.where}: S is no matrix of numbers. Take the annotations of '
        'version 1.1 as published.'
      )
    with np.errstate(invalid='ignore'):  # The comparison finds NaN.
      label = values.astype(np.uint8)
    if (label != values).any():
      raise UserError(
        f'{file.where}: S holds {np.unique(values[label != values])[:5]}, '
        'which are no ids from 0 to 182. Take the annotations of version 1.1 '
        'as published.'
      )
    return label_table.translate(label, _TABLE, file.where)


def _photo(files: Files, root: str, split: str, name: str) -> File:
  """The photo, which mmsegmentation's conversion sorted into folders."""
  photo = files.get(f'{root}images/{name}.jpg')
  sorted_in = files.get(f'{root}images/{split}2014/{name}.jpg')
  return sorted_in if photo.size is None and sorted_in.size else photo
