"""PASCAL Context: whole scenes of VOC 2010, 59 classes.

The 59 most frequent of 459 classes, as semantic segmentation papers use them;
all else is background, which is ignored here and a class of its own in
`pascal_context60`. Labels come from `trainval_merged.json`, in which the other
classes are merged into the background already. Reading its 600 MB takes about
1.5 GB of memory.
"""

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import builder, checks, voc_layout
from emanet_jax.data.reading.example import Example, Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.reading.labels import decode_rle
from emanet_jax.data.reading.palette import voc_color
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_ANNOTATIONS = 'trainval_merged.json'
# Where it may lie.
_PLACES = tuple(
  f'{folder}{_ANNOTATIONS}' for folder in ('', 'VOCdevkit/VOC2010/', 'VOC2010/')
)

# Category ids of the annotations, which number 459 classes alphabetically.
NAMES = {
  0: 'background',
  2: 'aeroplane',
  9: 'bag',
  18: 'bed',
  19: 'bedclothes',
  22: 'bench',
  23: 'bicycle',
  25: 'bird',
  31: 'boat',
  33: 'book',
  34: 'bottle',
  44: 'building',
  45: 'bus',
  46: 'cabinet',
  59: 'car',
  65: 'cat',
  68: 'ceiling',
  72: 'chair',
  80: 'cloth',
  85: 'computer',
  98: 'cow',
  104: 'cup',
  105: 'curtain',
  113: 'dog',
  115: 'door',
  144: 'fence',
  158: 'floor',
  159: 'flower',
  162: 'food',
  187: 'grass',
  189: 'ground',
  207: 'horse',
  220: 'keyboard',
  232: 'light',
  258: 'motorbike',
  259: 'mountain',
  260: 'mouse',
  284: 'person',
  295: 'plate',
  296: 'platform',
  308: 'pottedplant',
  324: 'road',
  326: 'rock',
  347: 'sheep',
  349: 'shelves',
  354: 'sidewalk',
  355: 'sign',
  360: 'sky',
  366: 'snow',
  368: 'sofa',
  397: 'table',
  415: 'track',
  416: 'train',
  420: 'tree',
  424: 'truck',
  427: 'tvmonitor',
  440: 'wall',
  445: 'water',
  454: 'window',
  458: 'wood',
}

SPEC = DatasetSpec(
  name='pascal_context',
  classes=tuple(NAMES.values())[1:],
  palette=tuple(voc_color(label) for label in range(1, len(NAMES))),
  # In trainval_merged.json; the paper's split has 4998 and 5105.
  num_examples={'train': 4996, 'val': 5104},
  homepage='https://cs.stanford.edu/~roozbeh/pascal-context/',
  citation="""@inproceedings{mottaghi_cvpr14,
  author = {Roozbeh Mottaghi and Xianjie Chen and Xiaobai Liu and
            Nam-Gyu Cho and Seong-Whan Lee and Sanja Fidler and
            Raquel Urtasun and Alan Yuille},
  title = {The Role of Context for Object Detection and Semantic Segmentation
           in the Wild},
  booktitle = {CVPR},
  year = {2014}}""",
  licence='Photos are from flickr under its terms of use; for research only.',
  download=(
    'Get VOCtrainval_03-May-2010.tar (md5 da459979d0c395079b5c75ee67908abb) '
    'from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ and '
    'trainval_merged.json (sha1 169325d9f7e9047537fedca7b04de4dddf10b881), '
    'which the Detail API (https://github.com/zhanghang1989/detail-api) reads; '
    'the manual directory holds both, or VOCdevkit/VOC2010/JPEGImages in place '
    'of the archive. The JSON file may also lie in VOCdevkit/VOC2010.'
  ),
  checksums={
    'VOCtrainval_03-May-2010.tar': 'md5:da459979d0c395079b5c75ee67908abb',
    **dict.fromkeys(_PLACES, 'sha1:169325d9f7e9047537fedca7b04de4dddf10b881'),
  },
)


@dataclasses.dataclass(frozen=True)
class _Annotated(Item):
  """An example whose label is a list of masks in the file of all labels.

  Attributes:
    size: Height and width.
    segments: Category id and runs; a later one covers the former.
  """

  size: tuple[int, int]
  segments: Sequence[tuple[int, str | list[int]]]


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """VOC 2010 photos with the annotations of the Detail API."""

  name = 'pascal_context'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits as the annotations have them; see the base class."""
    root = voc_layout.find_root(files, 'VOC2010', self.SPEC)
    places = map(files.get, _PLACES)
    annotations = next((file for file in places if file.size), None)
    if annotations is None:
      raise UserError(
        f'{files.root} holds no {_ANNOTATIONS}. {self.SPEC.download}'
      )
    found = _items(files, f'{root}/JPEGImages', annotations)
    for items in found.values():
      checks.check_items(self.SPEC, items)
    return found

  def read(self, item: _Annotated) -> Example:
    """Paints an example's masks over each other; see the base class."""
    ids = np.zeros(item.size, np.int64)
    try:
      for category, counts in item.segments:
        ids[decode_rle(counts, item.size)] = category
    except ValueError as error:
      raise UserError(
        f'{item.label.where}: a mask of {item.id} cannot be decoded ({error}). '
        'Get the file again.'
      ) from error
    where = f'{item.label.where}, image {item.id}'
    label = self._classes(ids, where)
    photo = item.image
    return Example(item.id, photo.read(), label, photo.where, where)

  def _classes(self, ids: np.ndarray, where: str) -> UInt8[np.ndarray, 'h w']:
    """Category ids to classes of this set; the background may be none."""
    values, inverse = np.unique(ids, return_inverse=True)
    unknown = sorted(set(values.tolist()) - NAMES.keys())
    if unknown:  # The public converters refuse them as well.
      raise UserError(
        f'{where}: category {unknown} is none of the 59 of PASCAL Context and '
        'not 0, background. Annotations of all 459 classes do not serve: get '
        f'the merged ones. {self.SPEC.download}'
      )
    classes = self.SPEC.classes
    names = [NAMES[value] for value in values.tolist()]
    labels = [classes.index(n) if n in classes else IGNORE_LABEL for n in names]
    return np.array(labels, np.uint8)[inverse].reshape(ids.shape)


def _items(
  files: Files, top: str, annotations: File
) -> dict[str, list[_Annotated]]:
  segments = collections.defaultdict(list)
  found = {split: [] for split in SPEC.num_examples}
  text = annotations.text()
  try:
    content = json.loads(text, object_hook=_needed)
    for segment in content['annos_segmentation']:
      segments[segment['image_id']].append(
        (segment['category_id'], segment['segmentation']['counts'])
      )
    for image in content['images']:
      if image['phase'] in found:
        photo = files.get(f'{top}/{image["file_name"]}')
        found[image['phase']].append(
          _Annotated(
            photo.stem,
            photo,
            annotations,
            (image['height'], image['width']),
            segments[image['image_id']],
          )
        )
  except UserError:
    raise
  except (ValueError, LookupError, TypeError) as error:
    raise UserError(
      f'{annotations.where} is no annotation of the Detail API ({error!r}): '
      f'expected the JSON object of {_ANNOTATIONS}. {SPEC.download}'
    ) from error
  return found


# Of the file's 600 MB of text, most are parts, boundaries and occlusions, as
# Python objects several GB. Dropped as each is read, they never exist together.
_NEEDED = frozenset(
  [
    *('images', 'image_id', 'file_name', 'phase', 'height', 'width'),
    *('annos_segmentation', 'category_id', 'segmentation', 'counts'),
  ]
)


def _needed(fields: dict[str, Any]) -> dict[str, Any]:
  return {key: fields[key] for key in _NEEDED & fields.keys()}
