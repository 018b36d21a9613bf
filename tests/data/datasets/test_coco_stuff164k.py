"""COCO-Stuff 164k: every value, the ways it is unpacked, and refusals."""

import shutil

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import coco_stuff10k, coco_stuff164k
from tests.data.datasets import miniature
from tests.data.layouts import prepare, write_label, write_photo

UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # ids; a map has id - 1
# Id, height, width, kind of photo.
EXAMPLES = {
  'train': (
    ('000000000009', 30, 40, 'RGB'),
    ('000000000025', 40, 24, 'RGB'),  # upright
    ('000000000030', 20, 20, 'L'),
  ),
  'val': (('000000000139', 30, 40, 'L'),),
}
# Where photos and maps are found, and under what folder's folder.
FORMS = {
  'official': ('images', 'annotations', ''),
  'beside': ('images', 'stuffthingmaps', ''),
  'detection': ('.', 'stuffthingmaps', 'coco'),
  'together': ('.', '.', ''),
  'mmsegmentation': ('images', 'annotations', 'coco_stuff164k'),
}
ZIPS = {
  'train2017.zip': {'images/train2017': 'train2017'},
  'val2017.zip': {'images/val2017': 'val2017'},
  'stuffthingmaps_trainval2017.zip': {
    'annotations/train2017': 'train2017',
    'annotations/val2017': 'val2017',
  },
}


def expected(values):
  """An unused id between two others takes no class index."""
  skipped = sum((values + 1 > unused).astype(int) for unused in UNUSED)
  return np.where(values == 255, 255, values - skipped)


def make(root, photos='images', maps='annotations'):
  """Writes all examples; returns {split: {id: (photo, values)}}."""
  used = [*(i - 1 for i in range(1, 183) if i not in UNUSED), 255]
  content = {}
  for split, examples in EXAMPLES.items():
    content[split] = {}
    for i, (name, height, width, mode) in enumerate(examples):
      photo = root / photos / f'{split}2017' / f'{name}.jpg'
      path = root / maps / f'{split}2017' / f'{name}.png'
      write_photo(photo, height, width, seed=i, mode=mode)
      palette = np.arange(768) % 256 if i else None  # indexed, or grey
      write_label(path, np.roll(used, i), height, width, palette)
      values = np.asarray(Image.open(path)).astype(int)
      content[split][name] = photo.read_bytes(), values
  return content


@pytest.fixture
def root(tmp_path, monkeypatch):
  miniature.forget_checksums(monkeypatch, 'coco_stuff164k')
  return tmp_path / 'raw'


def compare(root, tmp_path, content):
  dataset = prepare('coco_stuff164k', root, tmp_path / 'prepared')
  assert dataset.counts == {s: len(e) for s, e in content.items()}
  for split, examples in content.items():
    want = {n: (p, expected(values)) for n, (p, values) in examples.items()}
    miniature.compare(dataset, split, want)
  return dataset


def test_the_classes_are_those_of_10k():
  spec = coco_stuff164k.SPEC
  assert spec.classes == coco_stuff10k.SPEC.classes
  assert spec.classes[expected(np.array(181))] == 'wood'
  assert spec.classes[expected(np.array(12))] == 'stop sign'


@pytest.mark.parametrize('form', FORMS)
def test_every_pixel_is_a_class_in_every_layout(root, form, tmp_path):
  photos, maps, above = FORMS[form]
  content = make(root / above, photos, maps)
  others = root / above / 'annotations'
  others.mkdir(exist_ok=True)
  (others / 'instances_val2017.json').write_text('{}')
  compare(root, tmp_path, content)


def test_archives_serve_as_they_are(root, tmp_path):
  content = make(root)
  miniature.pack_away(root, ZIPS)
  assert sorted(path.name for path in root.glob('*.zip')) == sorted(ZIPS)
  compare(root, tmp_path, content)


def test_photos_unpacked_beside_the_archive_of_maps(root, tmp_path):
  content = make(root)
  name = 'stuffthingmaps_trainval2017.zip'
  miniature.pack_away(root, {name: ZIPS[name]})
  compare(root, tmp_path, content)


def test_converted_copies_are_passed_over(root, tmp_path):
  content = make(root)
  for split, examples in content.items():
    for name, (_, values) in examples.items():
      folder = root / 'annotations' / f'{split}2017'
      label = Image.fromarray(expected(values).astype(np.uint8))
      label.save(folder / f'{name}_labelTrainIds.png')
  compare(root, tmp_path, content)


def test_a_grey_photo_has_three_equal_channels(root, tmp_path):
  dataset = compare(root, tmp_path, make(root))
  photo = root / 'images/val2017/000000000139.jpg'
  assert Image.open(photo).mode == 'L'
  image, _ = miniature.examples(dataset, 'val')['000000000139']
  assert (image == image[..., :1]).all()


def test_val_alone_does(root, tmp_path):
  content = make(root)
  shutil.rmtree(root / 'images/train2017')  # 18 GB; the maps come together
  compare(root, tmp_path, {'val': content['val']})


@pytest.mark.parametrize('value', [*(i - 1 for i in UNUSED), 182, 254])
def test_a_value_without_meaning_is_refused(root, value, tmp_path):
  make(root)
  path = root / 'annotations/val2017/000000000139.png'
  write_label(path, [value, 255])
  message = f'{path} holds the value(s) [{value}], which mean nothing'
  miniature.refuse('coco_stuff164k', root, tmp_path, message, 'as published')


def test_16_bit_maps_are_refused(root, tmp_path):
  make(root)
  path = root / 'annotations/val2017/000000000139.png'
  miniature.save_16_bit(path)
  miniature.refuse('coco_stuff164k', root, tmp_path, str(path), 'I;16 pixels')


@pytest.mark.parametrize(
  ('kind', 'path'),
  [
    ('label', 'annotations/train2017/000000000025.png'),
    ('photo', 'images/train2017/000000000025.jpg'),
  ],
)
def test_half_of_a_pair_is_refused(root, kind, path, tmp_path):
  make(root)
  (root / path).unlink()
  message = f'has no {kind}: {root / path} does not exist'
  miniature.refuse('coco_stuff164k', root, tmp_path, message, 'Get train2017')


def test_photos_without_maps_are_refused(root, tmp_path):
  make(root)
  shutil.rmtree(root / 'annotations')
  message = f'{root / "annotations/train2017/000000000009.png"} does not exist'
  miniature.refuse(
    'coco_stuff164k', root, tmp_path, message, 'stuffthingmaps_trainval2017.zip'
  )


def test_maps_without_photos_are_refused(root, tmp_path):
  make(root)
  shutil.rmtree(root / 'images')
  message = f'{root} holds photos neither in train2017 nor in val2017'
  miniature.refuse('coco_stuff164k', root, tmp_path, message, 'Get train2017')


def test_another_archive_is_refused(root, tmp_path, monkeypatch):
  make(root)
  miniature.pack_away(root, ZIPS)
  monkeypatch.setattr(coco_stuff164k.Builder, 'SPEC', coco_stuff164k.SPEC)
  message = f'{root / "train2017.zip"} is not the published file'
  miniature.refuse(
    'coco_stuff164k', root, tmp_path, message, 'cced6f7f71b7629d'
  )
