"""A user's own photos and masks, with as many classes as they have.

Photos are JPEG, PNG, BMP, WebP, TIFF and what else `images` reads, masks PNG,
BMP or TIFF. A photo and a mask of one name are a pair. They lie in

* images/ and masks/, each with folders train, val, test or without (photos in
  images/test may be without masks: they can be predicted, not scored); or
* JPEGImages/ and SegmentationClass/ (or SegmentationClassPNG/), as labelme's
  labelme2voc.py and CVAT's "Segmentation mask" with images export them; or
* anywhere, when train.csv, val.csv and test.csv list them: photo,mask as paths
  in the folder, with or without a header. In .txt, tabs or blanks divide them.

Which photos are for training is said by lists of names, train.txt, val.txt and
test.txt in the folder, in splits/ or in ImageSets/Segmentation/; else by the
folders train, val, test; else every tenth photo by name is for validation. A
photo for training may be in no other split.

What the values and colours of masks mean is said by classes.txt (see
`class_list` and `masks`), labelme's class_names.txt or CVAT's labelmap.txt.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import builder, checks, images
from emanet_jax.data.reading.class_list import ClassList, read_classes
from emanet_jax.data.reading.example import Example, Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.reading.masks import read_mask
from emanet_jax.data.reading.pairs import find_splits
from emanet_jax.data.reading.palette import visible_palette
from emanet_jax.data.reading.tree import Tree, read_tree
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_CLASS_LISTS = ('classes.txt', 'class_names.txt', 'labelmap.txt')

SPEC = DatasetSpec(
  name='folder',
  classes=(),  # These, their colours and the counts come from the folder.
  palette=(),
  num_examples={},
  homepage='',
  citation='',
  licence='That of the photos.',
  download=(
    'The manual directory holds images/ and masks/ with files of the same '
    'names (or an export of labelme or CVAT, or train.csv and val.csv that '
    'list photo,mask), and classes.txt with a class name a line, in the order '
    'of the values in the masks, or "name r g b" where masks have colours.'
  ),
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """Any folder of photos and masks."""

  name = 'folder'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the splits; see the module and the base class."""
    tree = read_tree(files)
    images.tell_unread(tree, str(files.root))
    self._classes = classes = _class_list(tree, files)
    found = find_splits(tree, str(files.root))
    for items in found.values():
      checks.check_items(self.SPEC, items)
    self.spec = dataclasses.replace(
      self.SPEC,
      classes=classes.names,
      palette=visible_palette(classes.colors, len(classes.names)),
      unlabelled=tuple(s for s, i in found.items() if i[0].label is None),
    )
    # With these the greys or other colours of what is ignored are known.
    if len(classes.names) == 2 and not (classes.is_grey or classes.ignored):
      self._check_binary([item for items in found.values() for item in items])
    return found

  def read(self, item: Item) -> Example:
    """Reads a photo that nobody has looked at before; see the base class."""
    example = super().read(item)
    checks.check_photo_as_taken(example.image, example.image_where)
    return example

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads a mask as the class list says."""
    return read_mask(file, self._classes)

  def _check_binary(self, items: Sequence[Item]) -> None:
    """Refuses masks of 0 and 255, in which all but the background is ignored.

    Reads masks until one holds the second class, mostly the first.
    """
    ignoring = None
    for item in items:
      if item.label is None:
        continue
      try:
        values = self.read_label(item.label)
      except UserError:  # told, or counted as bad, when all are read
        continue
      if (values == 1).any():
        return
      if (values == IGNORE_LABEL).any():
        ignoring = ignoring or item.label
    if ignoring:
      first, second = self._classes.names
      raise UserError(
        f'No mask holds 1, {second!r}, but some hold 255, which is ignored '
        f'(as {ignoring.where} does). If 255 means {second!r}, write both '
        f'colours into {self._classes.where}, "{first} 0 0 0" and "{second} '
        '255 255 255": masks are then read by these.'
      )


def _class_list(tree: Tree, files: Files) -> ClassList:
  for name in _CLASS_LISTS:
    if name in tree:
      return read_classes(tree[name])
  packed = [f for p, f in tree.items() if p.endswith(('.zip', '.tar', '.tgz'))]
  hint = f'Give the archive {packed[0].where} itself. ' if packed else ''
  raise UserError(
    f'{files.root} holds no {_CLASS_LISTS[0]}. {hint}{SPEC.download}'
  )
