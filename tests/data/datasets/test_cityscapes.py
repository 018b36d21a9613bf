"""Cityscapes: every labelId, both archives, and what must be refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import cityscapes
from emanet_jax.errors import UserError
from tests.data.datasets import miniature
from tests.data.layouts import prepare, write_label, write_photo

# The publisher's labels.py: labelId to the name of what is scored.
SCORED = {
  7: 'road',
  8: 'sidewalk',
  11: 'building',
  12: 'wall',
  13: 'fence',
  17: 'pole',
  19: 'traffic light',
  20: 'traffic sign',
  21: 'vegetation',
  22: 'terrain',
  23: 'sky',
  24: 'person',
  25: 'rider',
  26: 'car',
  27: 'truck',
  28: 'bus',
  31: 'train',
  32: 'motorcycle',
  33: 'bicycle',
}
SPLITS = {
  'train': [
    'aachen_000000_000019',
    'aachen_000001_000019',
    'ulm_000000_000019',
  ],
  'val': ['frankfurt_000000_000294'],
  'test': ['berlin_000000_000019', 'bonn_000000_000019'],
}
ZIPS = {
  'leftImg8bit_trainvaltest.zip': {'leftImg8bit': 'leftImg8bit'},
  'gtFine_trainvaltest.zip': {'gtFine': 'gtFine'},
}


def photo_path(split, name):
  city = name.split('_')[0]
  return f'leftImg8bit/{split}/{city}/{name}_leftImg8bit.png'


def label_path(split, name, kind='labelIds.png'):
  return f'gtFine/{split}/{name.split("_")[0]}/{name}_gtFine_{kind}'


def expected(label_ids):
  label = np.full(label_ids.shape, 255)
  for label_id, name in SCORED.items():
    label[label_ids == label_id] = cityscapes.SPEC.classes.index(name)
  return label


@pytest.fixture
def raw(tmp_path, monkeypatch):
  """Both archives unpacked, and {split: {id: (photo, labelIds)}}."""
  miniature.forget_checksums(monkeypatch, 'cityscapes')
  root, content = tmp_path / 'raw', {}
  for split, names in SPLITS.items():
    content[split] = {}
    for i, name in enumerate(names):
      photo, label = root / photo_path(split, name), label_path(split, name)
      write_photo(photo, seed=i)
      # The test split's dummies: the car and the border alone.
      values = range(1, 4) if split == 'test' else range(34)
      write_label(root / label, np.roll(values, i))
      miniature.save_16_bit(root / label_path(split, name, 'instanceIds.png'))
      write_photo(root / label_path(split, name, 'color.png'))
      (root / label_path(split, name, 'polygons.json')).write_text('{}')
      label_ids = np.asarray(Image.open(root / label))
      content[split][name] = photo.read_bytes(), label_ids
  write_photo(root / 'leftImg8bit/train_extra/x/x_000000_1_leftImg8bit.png')
  return root, content


def test_the_names_and_ids_are_the_publishers():
  spec = cityscapes.SPEC
  assert spec.classes == tuple(SCORED.values())
  assert tuple(SCORED) == cityscapes.LABEL_IDS
  assert spec.palette[spec.classes.index('person')] == (220, 20, 60)


@pytest.mark.parametrize('form', ['unpacked', 'zips', 'mixed', 'above'])
def test_every_pixel_is_a_train_id(raw, form, tmp_path):
  root, content = raw
  if form == 'above':
    shutil.move(root, tmp_path / 'data' / 'cityscapes')
    root = tmp_path / 'data'
  elif form != 'unpacked':
    names = list(ZIPS)[form == 'mixed' :]
    miniature.pack_away(root, {name: ZIPS[name] for name in names})
  dataset = prepare('cityscapes', root, tmp_path / 'prepared')
  assert dataset.counts == {s: len(n) for s, n in SPLITS.items()}
  for split in ('train', 'val'):
    want = {n: (p, expected(i)) for n, (p, i) in content[split].items()}
    miniature.compare(dataset, split, want)
  blank = np.full((30, 40), 255)
  want = {n: (p, blank) for n, (p, _) in content['test'].items()}
  miniature.compare(dataset, 'test', want)


def test_a_prediction_goes_back_to_label_ids(raw, tmp_path):
  root, content = raw
  dataset = prepare('cityscapes', root, tmp_path / 'prepared')
  name = SPLITS['val'][0]
  label_ids = content['val'][name][1]
  label = miniature.examples(dataset, 'val')[name][1]
  scored = label != 255
  back = np.uint8(cityscapes.LABEL_IDS)[label[scored]]
  np.testing.assert_array_equal(back, label_ids[scored])
  assert set(label_ids[~scored]) == set(range(34)) - SCORED.keys()


def test_the_test_split_has_no_labels(raw, tmp_path):
  root, _ = raw
  shutil.rmtree(root / 'gtFine' / 'test')
  dataset = prepare('cityscapes', root, tmp_path / 'prepared')
  assert dataset.counts['test'] == 2
  with pytest.raises(UserError, match='test has no labels'):
    dataset.require_labels('test')


def test_a_split_without_photos_is_left_out(raw, tmp_path):
  root, _ = raw
  shutil.rmtree(root / 'leftImg8bit' / 'train')
  dataset = prepare('cityscapes', root, tmp_path / 'prepared')
  assert dataset.counts == {'val': 1, 'test': 2}


@pytest.mark.parametrize('path', [label_path, photo_path])
def test_half_of_a_pair_is_refused(raw, path, tmp_path):
  root, _ = raw
  missing = root / path('train', SPLITS['train'][1])
  missing.unlink()
  kind = {label_path: 'label', photo_path: 'photo'}[path]
  message = f"'aachen_000001_000019' has no {kind}: {missing} does not exist"
  miniature.refuse('cityscapes', root, tmp_path, message, 'Get leftImg8bit')


@pytest.mark.parametrize('value', [34, 254, 255])
def test_a_value_that_is_no_label_id_is_refused(raw, value, tmp_path):
  root, _ = raw
  path = root / label_path('val', SPLITS['val'][0])
  write_label(path, [7, value])
  message = f'{path} holds the value(s) [{value}], which mean nothing'
  miniature.refuse('cityscapes', root, tmp_path, message, 'as published')


def test_16_bit_labels_are_refused(raw, tmp_path):
  root, _ = raw
  path = root / label_path('val', SPLITS['val'][0])
  miniature.save_16_bit(path)
  miniature.refuse(
    'cityscapes', root, tmp_path, str(path), 'I;16 pixels', 'one 8-bit channel'
  )


def test_labels_alone_are_refused(raw, tmp_path):
  root, _ = raw
  shutil.rmtree(root / 'leftImg8bit')
  message = f'{root} holds none of leftImg8bit/train, val and test'
  miniature.refuse('cityscapes', root, tmp_path, message, 'Get leftImg8bit')


def test_another_archive_is_refused(raw, tmp_path, monkeypatch):
  root, _ = raw
  miniature.pack_away(root, ZIPS)
  monkeypatch.setattr(cityscapes.Builder, 'SPEC', cityscapes.SPEC)
  message = f'{root / "leftImg8bit_trainvaltest.zip"} is not the published file'
  miniature.refuse('cityscapes', root, tmp_path, message, '0a6e97e94b616a51')
