"""COCO-Stuff 10k: every id of its MATLAB files, its lists, and refusals."""

import shutil

import numpy as np
import pytest
import scipy.io
from PIL import Image

from emanet_jax.data.datasets import coco_stuff10k
from tests.data.datasets import miniature
from tests.data.layouts import prepare, write_photo

ZIP = 'cocostuff-10k-v1.1.zip'
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
# From the publisher's labels.txt, on both sides of every unused id.
SOME = {
  1: 'person',
  11: 'fire hydrant',
  13: 'stop sign',
  25: 'giraffe',
  27: 'backpack',
  28: 'umbrella',
  31: 'handbag',
  44: 'bottle',
  46: 'wine glass',
  65: 'bed',
  67: 'dining table',
  70: 'toilet',
  72: 'tv',
  82: 'refrigerator',
  84: 'book',
  90: 'toothbrush',
  92: 'banner',
  96: 'building-other',
  110: 'desk-stuff',
  149: 'road',
  157: 'sky-other',
  182: 'wood',
}
# Id, height, width, kind of photo, type of S.
EXAMPLES = {
  'train': (
    ('COCO_train2014_000000000431', 30, 40, 'RGB', np.uint8),
    ('COCO_train2014_000000000077', 40, 24, 'RGB', np.float64),
    ('COCO_train2014_000000000113', 20, 20, 'L', np.uint16),
  ),
  'test': (('COCO_train2014_000000001264', 30, 40, 'L', np.uint8),),
}


def expected(ids):
  """An unused id between two others takes no class index."""
  skipped = sum((ids > unused).astype(int) for unused in UNUSED)
  return np.where(ids == 0, 255, ids.astype(int) - 1 - skipped)


def write_mat(path, values, **others):
  path.parent.mkdir(parents=True, exist_ok=True)
  regions = np.zeros((2, 2), np.uint16)
  names = np.array(['person', 'bicycle'], object)
  fields = {'S': values, 'regionMapStuff': regions, 'names': names, **others}
  scipy.io.savemat(path, {k: v for k, v in fields.items() if v is not None})


def first_mat(root):
  return root / 'annotations' / f'{EXAMPLES["train"][0][0]}.mat'


@pytest.fixture
def raw(tmp_path, monkeypatch):
  """The archive unpacked, and {split: {id: (photo, ids)}}."""
  miniature.forget_checksums(monkeypatch, 'coco_stuff10k')
  root, content = tmp_path / 'raw', {}
  used = sorted({*range(183)} - {*UNUSED})
  lists = root / 'imageLists'
  lists.mkdir(parents=True)
  for split, examples in EXAMPLES.items():
    content[split] = {}
    names = [name for name, *_ in examples]
    (lists / f'{split}.txt').write_text('\r\n'.join([*names, '']))
    for i, (name, height, width, mode, dtype) in enumerate(examples):
      photo = root / 'images' / f'{name}.jpg'
      write_photo(photo, height, width, seed=i, mode=mode)
      ids = np.resize(np.roll(used, i), (height, width)).astype(dtype)
      write_mat(root / 'annotations' / f'{name}.mat', ids)
      content[split][name] = photo.read_bytes(), ids
  return root, content


def test_the_names_are_the_publishers():
  names = coco_stuff10k.CLASSES
  assert len(names) == 171
  assert coco_stuff10k.IDS[0] == 1
  for label_id, name in SOME.items():
    assert names[expected(np.array(label_id))] == name
    assert coco_stuff10k.IDS[names.index(name)] == label_id


@pytest.mark.parametrize('form', ['unpacked', 'zip', 'above', 'sorted'])
def test_every_pixel_is_a_class(raw, form, tmp_path):
  root, content = raw
  if form == 'zip':
    folders = ('images', 'annotations', 'imageLists')
    miniature.pack_away(root, {ZIP: dict(zip(folders, folders, strict=True))})
  elif form == 'above':
    shutil.move(root, tmp_path / 'data' / 'coco_stuff10k')
    root = tmp_path / 'data'
  elif form == 'sorted':  # as mmsegmentation's conversion once moved them
    for split, examples in content.items():
      (root / 'images' / f'{split}2014').mkdir()
      for name in examples:
        photo = root / 'images' / f'{name}.jpg'
        photo.rename(root / 'images' / f'{split}2014' / photo.name)
  dataset = prepare('coco_stuff10k', root, tmp_path / 'prepared')
  assert dataset.counts == {'train': 3, 'test': 1}
  for split, examples in content.items():  # in the order of the lists
    want = {n: (photo, expected(ids)) for n, (photo, ids) in examples.items()}
    miniature.compare(dataset, split, want)


def test_a_grey_photo_has_three_equal_channels(raw, tmp_path):
  root, _ = raw
  dataset = prepare('coco_stuff10k', root, tmp_path / 'prepared')
  name = EXAMPLES['test'][0][0]
  assert Image.open(root / 'images' / f'{name}.jpg').mode == 'L'
  image, _ = miniature.examples(dataset, 'test')[name]
  assert (image == image[..., :1]).all()


def test_a_split_without_list_is_left_out(raw, tmp_path):
  root, _ = raw
  (root / 'imageLists' / 'train.txt').unlink()
  dataset = prepare('coco_stuff10k', root, tmp_path / 'prepared')
  assert dataset.counts == {'test': 1}


@pytest.mark.parametrize('value', [*UNUSED, 183, 255])
def test_an_unused_id_is_refused(raw, value, tmp_path):
  root, _ = raw
  write_mat(first_mat(root), np.full((30, 40), value, np.uint8))
  message = (
    f'{first_mat(root)} holds the value(s) [{value}], which mean nothing'
  )
  miniature.refuse('coco_stuff10k', root, tmp_path, message)


@pytest.mark.parametrize('value', [-1, 256, 65536 + 7, 2.5, np.nan])
def test_a_number_that_is_no_id_is_refused(raw, value, tmp_path):
  root, _ = raw
  write_mat(first_mat(root), np.full((30, 40), value))
  message = f'{first_mat(root)}: S holds [{value:g}'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, '0 to 182')


@pytest.mark.parametrize('values', ['text', np.zeros((30, 40, 3))])
def test_a_field_that_is_no_map_is_refused(raw, values, tmp_path):
  root, _ = raw
  write_mat(first_mat(root), values)
  message = f'{first_mat(root)}: S is no matrix of numbers'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, 'version 1.1')


def test_a_file_without_the_field_is_refused(raw, tmp_path):
  root, _ = raw
  write_mat(first_mat(root), None)
  message = f'{first_mat(root)} cannot be read'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, "'S'")


def test_a_damaged_file_is_refused(raw, tmp_path):
  root, _ = raw
  content = first_mat(root).read_bytes()
  first_mat(root).write_bytes(content[: len(content) // 2])
  message = f'{first_mat(root)} cannot be read'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, 'Restore it')


def test_a_list_that_names_an_absent_file_is_refused(raw, tmp_path):
  root, _ = raw
  with open(root / 'imageLists' / 'test.txt', 'a') as listed:
    listed.write('COCO_train2014_000000009999\n')
  photo = root / 'images' / 'COCO_train2014_000000009999.jpg'
  message = f'has no photo: {photo} does not exist'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, f'Get {ZIP}')


def test_a_missing_label_is_refused(raw, tmp_path):
  root, _ = raw
  first_mat(root).unlink()
  message = f'has no label: {first_mat(root)} does not exist'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, f'Get {ZIP}')


def test_missing_lists_are_refused(raw, tmp_path):
  root, _ = raw
  shutil.rmtree(root / 'imageLists')
  message = f'{root} holds neither imageLists/train.txt nor'
  miniature.refuse('coco_stuff10k', root, tmp_path, message, f'Get {ZIP}')
