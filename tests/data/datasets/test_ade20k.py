"""ADE20K's benchmark: every value, grey and upright photos, refusals."""

import shutil

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import ade20k
from tests.data.datasets import miniature
from tests.data.layouts import prepare, write_label, write_photo

TOP = 'ADEChallengeData2016'
# From the benchmark's objectInfo150.txt and color150.mat.
SOME = {
  1: ('wall', (120, 120, 120)),
  8: ('bed', (204, 5, 255)),
  13: ('person', (150, 5, 61)),
  21: ('car', (0, 102, 200)),
  50: ('fireplace', (250, 10, 15)),
  59: ('screen door', (0, 173, 255)),
  100: ('buffet', (255, 112, 0)),
  131: ('screen', (0, 204, 255)),
  150: ('flag', (92, 0, 255)),
}
# Folder, number, height, width, kind of photo.
PHOTOS = (
  ('training', 'ADE_train_00000001', 30, 40, 'RGB'),
  ('training', 'ADE_train_00000002', 40, 24, 'RGB'),  # upright
  ('training', 'ADE_train_00000010', 20, 20, 'L'),
  ('validation', 'ADE_val_00000001', 30, 40, 'L'),
)
SPLITS = {'train': 'training', 'val': 'validation'}


@pytest.fixture
def raw(tmp_path, monkeypatch):
  """The archive unpacked, and {folder: {id: (photo, published label)}}."""
  miniature.forget_checksums(monkeypatch, 'ade20k')
  root, content = tmp_path / 'raw', {'training': {}, 'validation': {}}
  for i, (folder, name, height, width, mode) in enumerate(PHOTOS):
    photo = root / TOP / 'images' / folder / f'{name}.jpg'
    label = root / TOP / 'annotations' / folder / f'{name}.png'
    write_photo(photo, height, width, seed=i, mode=mode)
    write_label(label, np.roll(range(151), i), height, width)
    values = np.asarray(Image.open(label))
    content[folder][name] = photo.read_bytes(), values
  (root / TOP / 'objectInfo150.txt').write_text('Idx\n')
  return root, content


def test_the_names_and_colours_are_the_publishers():
  spec = ade20k.SPEC
  assert spec.num_classes == 150
  for value, (name, color) in SOME.items():
    assert spec.classes[value - 1] == name
    assert spec.palette[value - 1] == color


@pytest.mark.parametrize('form', ['unpacked', 'zip', 'above', 'within'])
def test_every_pixel_is_one_less(raw, form, tmp_path):
  root, content = raw
  if form == 'zip':
    miniature.pack_away(root, {f'{TOP}.zip': {TOP: TOP}})
    root = root / f'{TOP}.zip'  # the archive itself does too
  elif form == 'above':
    shutil.move(root, tmp_path / 'data' / 'ade')
    root = tmp_path / 'data'
  elif form == 'within':
    root = root / TOP
  dataset = prepare('ade20k', root, tmp_path / 'prepared')
  assert dataset.counts == {'train': 3, 'val': 1}
  for split, folder in SPLITS.items():
    want = {
      name: (photo, np.where(values == 0, 255, values.astype(int) - 1))
      for name, (photo, values) in content[folder].items()
    }
    miniature.compare(dataset, split, want)


def test_a_grey_photo_has_three_equal_channels(raw, tmp_path):
  root, _ = raw
  dataset = prepare('ade20k', root, tmp_path / 'prepared')
  image, _ = miniature.examples(dataset, 'val')['ADE_val_00000001']
  photo = root / TOP / 'images/validation/ADE_val_00000001.jpg'
  assert Image.open(photo).mode == 'L'
  assert (image == image[..., :1]).all()


@pytest.mark.parametrize('value', [151, 255])
def test_a_value_above_150_is_refused(raw, value, tmp_path):
  root, _ = raw
  path = root / TOP / 'annotations/validation/ADE_val_00000001.png'
  write_label(path, [0, value])
  message = f'{path} holds the value(s) [{value}], which mean nothing'
  miniature.refuse('ade20k', root, tmp_path, message)


def test_16_bit_labels_are_refused(raw, tmp_path):
  root, _ = raw
  path = root / TOP / 'annotations/training/ADE_train_00000001.png'
  miniature.save_16_bit(path)
  miniature.refuse('ade20k', root, tmp_path, str(path), 'I;16 pixels')


@pytest.mark.parametrize(
  ('kind', 'path'),
  [
    ('label', 'annotations/training/ADE_train_00000002.png'),
    ('photo', 'images/training/ADE_train_00000002.jpg'),
  ],
)
def test_half_of_a_pair_is_refused(raw, kind, path, tmp_path):
  root, _ = raw
  missing = root / TOP / path
  missing.unlink()
  message = f'has no {kind}: {missing} does not exist'
  miniature.refuse('ade20k', root, tmp_path, message, f'Get {TOP}.zip')


def test_a_split_that_is_absent_is_left_out(raw, tmp_path):
  root, _ = raw
  for kind in ('images', 'annotations'):
    shutil.rmtree(root / TOP / kind / 'training')
  dataset = prepare('ade20k', root, tmp_path / 'prepared')
  assert dataset.counts == {'val': 1}


def test_another_folder_is_refused(raw, tmp_path):
  root, _ = raw
  (root / TOP).rename(root / 'ADE20K_2021_17_01')
  message = f'{root} holds no {TOP}/images'
  miniature.refuse('ade20k', root, tmp_path, message, f'Get {TOP}.zip')


def test_another_archive_is_refused(raw, tmp_path, monkeypatch):
  root, _ = raw
  miniature.pack_away(root, {f'{TOP}.zip': {TOP: TOP}})
  monkeypatch.setattr(ade20k.Builder, 'SPEC', ade20k.SPEC)
  message = f'{root / TOP}.zip is not the published file'
  miniature.refuse('ade20k', root, tmp_path, message, '219e1696abb36c8b')
