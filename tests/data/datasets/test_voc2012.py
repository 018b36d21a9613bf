"""VOC 2012, its test photos, and trainaug from either of its sources."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import voc2012
from emanet_jax.data.input import transforms
from emanet_jax.errors import UserError
from tests.data.layouts import examples, pack, prepare


@pytest.mark.parametrize('up', [0, 1, 2])
def test_three_roots_do(voc, up, tmp_path):
  dataset = prepare('voc2012', [voc, *voc.parents][up], tmp_path / 'out')
  assert dataset.counts == {'train': 2, 'val': 1, 'trainaug': 4}


def test_photo_bytes_indices_and_order_are_kept(voc, tmp_path):
  dataset = prepare('voc2012', voc, tmp_path / 'out')
  assert list(examples(dataset, 'train')) == ['b', 'a']  # as listed
  record = dataset.source('train')[0]
  assert record['image'] == (voc / 'JPEGImages' / 'b.jpg').read_bytes()
  label = transforms.decode(record)['label']
  raw = np.asarray(Image.open(voc / 'SegmentationClass' / 'b.png'))
  np.testing.assert_array_equal(label, raw)
  assert set(np.unique(label)) == {0, 1, 20, 255}


def test_trainaug_is_all_labels_without_val(voc, tmp_path):
  dataset = prepare('voc2012', voc, tmp_path / 'out')
  found = examples(dataset, 'trainaug')
  assert list(found) == ['a', 'b', 'd', 'e']
  for name, (_, label) in found.items():
    raw = Image.open(voc / 'SegmentationClassAug' / f'{name}.png')
    np.testing.assert_array_equal(label, np.asarray(raw))


def test_trainaug_follows_its_list(voc, tmp_path):
  folder = voc / 'ImageSets' / 'SegmentationAug'
  folder.mkdir()
  (folder / 'train_aug.txt').write_text(
    '/JPEGImages/e.jpg /SegmentationClassAug/e.png\nd\n'
  )
  dataset = prepare('voc2012', voc, tmp_path / 'out')
  assert list(examples(dataset, 'trainaug')) == ['e', 'd']


def check_trainaug_from_sbd(dataset, voc_labels):
  """(SBD train + SBD val + VOC train) - VOC val, VOC's labels first."""
  assert dataset.counts == {'train': 2, 'val': 1, 'trainaug': 4}
  found = examples(dataset, 'trainaug')
  assert list(found) == ['a', 'b', 'd', 'e']
  for name in 'ab':
    np.testing.assert_array_equal(found[name][1], voc_labels[name])
  for name, i in (('d', 3), ('e', 4)):
    want = np.resize(np.uint8([0, 5, i]), (30 + i, 40))
    np.testing.assert_array_equal(found[name][1], want)


@pytest.fixture
def voc_labels(voc):
  folder = voc / 'SegmentationClass'
  return {n: np.asarray(Image.open(folder / f'{n}.png')) for n in 'ab'}


@pytest.mark.usefixtures('sbd')
def test_trainaug_from_sbd_unpacked(voc_labels, tmp_path):
  dataset = prepare('voc2012', tmp_path / 'raw', tmp_path / 'out')
  check_trainaug_from_sbd(dataset, voc_labels)


@pytest.mark.usefixtures('sbd')
def test_trainaug_from_sbd_in_its_archive(voc_labels, tmp_path, monkeypatch):
  names = {
    'VOCdevkit': 'VOCtrainval_11-May-2012.tar',
    'benchmark_RELEASE': 'benchmark.tgz',
  }
  for folder, name in names.items():
    shutil.move(tmp_path / 'raw' / folder, tmp_path / folder / folder)
    pack(tmp_path / folder, tmp_path / 'archives' / name)
  monkeypatch.setattr(
    voc2012.Builder,
    'SPEC',
    dataclasses.replace(
      voc2012.SPEC, checksums=dict.fromkeys(names.values(), '')
    ),
  )
  dataset = prepare('voc2012', tmp_path / 'archives', tmp_path / 'out')
  check_trainaug_from_sbd(dataset, voc_labels)


def test_no_trainaug_without_its_labels(voc, tmp_path):
  shutil.rmtree(voc / 'SegmentationClassAug')
  dataset = prepare('voc2012', voc, tmp_path / 'out')
  assert dataset.counts == {'train': 2, 'val': 1}
  with pytest.raises(UserError, match=r"no split 'trainaug'.*benchmark\.tgz"):
    dataset.source('trainaug')


def test_the_published_lists_are_required_by_default(voc, tmp_path):
  with pytest.raises(UserError, match=r'train has 2 of 1464.*trainaug has 4'):
    prepare('voc2012', voc, tmp_path / 'out', allow_partial=False)


def test_test_photos_alone(voc, tmp_path):
  (voc / 'ImageSets' / 'Segmentation' / 'test.txt').write_text('f\n')
  dataset = prepare('voc2012_test', voc, tmp_path / 'out')
  assert dataset.counts == {'test': 1}
  assert dataset.spec.classes == voc2012.CLASSES
  assert (
    dataset.source('test')[0]['image']
    == (voc / 'JPEGImages' / 'f.jpg').read_bytes()
  )


def test_test_photos_need_their_list(voc, tmp_path):
  with pytest.raises(UserError, match=r'test\.txt does not exist.*VOC2012test'):
    prepare('voc2012_test', voc, tmp_path / 'out')
