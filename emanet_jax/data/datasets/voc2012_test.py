"""PASCAL VOC 2012 test: 1456 photos whose labels the server keeps."""

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds

from emanet_jax.data.datasets import voc2012
from emanet_jax.data.reading import builder, checks, voc_layout
from emanet_jax.data.reading.example import Item
from emanet_jax.data.reading.files import Files
from emanet_jax.errors import UserError

SPEC = dataclasses.replace(
  voc2012.SPEC,
  name='voc2012_test',
  num_examples={'test': 1456},
  homepage='http://host.robots.ox.ac.uk:8080/',
  download=(
    'Get VOC2012test.tar from the evaluation server '
    '(http://host.robots.ox.ac.uk:8080/, after registration); the manual '
    'directory holds it or what it unpacks to, VOCdevkit/VOC2012 with '
    'JPEGImages and ImageSets/Segmentation/test.txt.'
  ),
  checksums={'VOC2012test.tar': ''},
  unlabelled=('test',),
)


class Builder(builder.SegmentationBuilder, skip_registration=True):
  """The official VOCdevkit layout, without labels."""

  name = 'voc2012_test'
  SPEC = SPEC
  VERSION = tfds.core.Version('1.0.0')

  def find(self, files: Files) -> Mapping[str, Sequence[Item]]:
    """Lists the test photos; see the base class."""
    root = voc_layout.find_root(files, 'VOC2012', SPEC)
    listed = voc_layout.list_file(files, root, 'test')
    if not listed.size:
      raise UserError(f'{listed.where} does not exist. {SPEC.download}')
    items = [
      Item(id=i, image=files.get(f'{root}/JPEGImages/{i}.jpg'), label=None)
      for i in voc_layout.read_ids(listed)
    ]
    checks.check_items(SPEC, items)
    return {'test': items}
