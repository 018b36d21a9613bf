"""A user's own folder: what people's photos and folders have that sets lack."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.prepared import load_dataset
from emanet_jax.errors import UserError
from tests.data.datasets import miniature
from tests.data.datasets.own_folder import SIZE, flat, save, write
from tests.data.layouts import examples, pack, prepare, write_photo
from tests.tiny import open_dataset


def rename(root, old, new):
  """Moves a folder of photos, and that of their masks."""
  for folder in ('images', 'masks'):
    (root / folder / new).parent.mkdir(exist_ok=True)
    (root / folder / old).rename(root / folder / new)


def split(root, **folders):
  """Sorts the flat folder's files, 00 to 20, into folders: name → count."""
  names = iter([f'{i:02}' for i in range(21)])
  for folder, count in folders.items():
    for kind in ('images', 'masks'):
      (root / kind / folder).mkdir()
    for _, name in zip(range(count), names, strict=False):
      for file in (f'images/{{}}{name}.jpg', f'masks/{{}}{name}.png'):
        (root / file.format('')).rename(root / file.format(f'{folder}/'))


@pytest.fixture
def root(tmp_path):
  flat(tmp_path / 'raw')
  return tmp_path / 'raw'


def test_folders_named_training_and_testing(root, tmp_path):
  split(root, Training=15, valid=4, testing=2)
  dataset = prepare('folder', root, tmp_path / 'out')
  assert dataset.counts == {'train': 15, 'val': 4, 'test': 2}


def test_photos_of_a_test_without_masks(root, tmp_path, make_config):
  split(root, train=15, val=4, test=2)
  shutil.rmtree(root / 'masks/test')
  dataset = prepare('folder', root, tmp_path / 'out')
  assert dataset.counts == {'train': 15, 'val': 4, 'test': 2}
  assert load_dataset(dataset.directory).spec.unlabelled == ('test',)
  found = examples(dataset, 'test')
  assert list(found) == ['19', '20']
  assert all((mask == 255).all() for _, mask in found.values())
  config = make_config(
    'folder', data_dir=str(tmp_path / 'out'), eval_split='test'
  )
  with pytest.raises(UserError, match='test has no labels'):
    open_dataset(config)


def test_a_listed_test_without_masks(root, tmp_path):
  for i in (19, 20):
    (root / f'masks/{i}.png').unlink()
  for name, ids in (('train', '00\n01\n'), ('val', '02\n'), ('test', '19\n20')):
    write(root / f'{name}.txt', ids)
  dataset = prepare('folder', root, tmp_path / 'out')
  assert dataset.counts == {'train': 2, 'val': 1, 'test': 2}
  assert dataset.spec.unlabelled == ('test',)


def test_hidden_folders_are_none(root, tmp_path):
  for kind in ('images', 'masks'):
    shutil.copytree(root / kind, root / kind / '.ipynb_checkpoints')
  folder = prepare('folder', root, tmp_path / 'folder')
  archive = pack(root, tmp_path / 'raw.zip')
  with zipfile.ZipFile(archive) as content:
    assert any('.ipynb_checkpoints/' in name for name in content.namelist())
  packed = prepare('folder', archive, tmp_path / 'archive')
  assert folder.counts == packed.counts == {'train': 18, 'val': 3}


def turn(root, orientation, suffix='jpg', size=SIZE):
  """A photo with an EXIF tag, whose mask has the same size."""
  (root / 'images/03.jpg').unlink()
  photo = Image.new('RGB', size[::-1], (90, 0, 0))
  exif = photo.getexif()
  exif[0x0112] = orientation
  photo.save(root / f'images/03.{suffix}', exif=exif)
  save(root / 'masks/03.png', np.zeros(size, np.uint8))


@pytest.mark.parametrize('orientation', [0, 1])
def test_upright_photos_are_taken(orientation, root, tmp_path):
  turn(root, orientation)
  assert '03' in examples(prepare('folder', root, tmp_path / 'out'), 'train')


def deep(root, suffix, mode):
  values = np.random.default_rng(0).integers(0, 4096, SIZE, np.uint16)
  (root / 'images/03.jpg').unlink()
  path = root / f'images/03.{suffix}'
  if mode == 'I;16':
    Image.fromarray(values).save(path)
    return
  import cv2

  cv2.imwrite(str(path), np.dstack([values] * 3))


EXIF = ['03', 'an EXIF tag that turns it', 'exiftran -ai']
DEEP = ['03', '16 bits a channel; expected 8', '-depth 8']
FAULTS = {
  **{
    f'orientation {orientation} of {suffix}': (
      lambda r, o=orientation, s=suffix: turn(r, o, s),
      [*EXIF, f'orientation {orientation}'],
    )
    for orientation, suffix in [
      *((o, 'jpg') for o in range(2, 9)),
      *((3, s) for s in ('png', 'webp', 'tif')),
    ]
  },
  'a square photo that lies': (lambda r: turn(r, 6, size=(32, 32)), EXIF),
  '16 bits of grey': (lambda r: deep(r, 'png', 'I;16'), DEEP),
  '16 bits of grey as TIFF': (lambda r: deep(r, 'tif', 'I;16'), DEEP),
  '16 bits of RGB': (lambda r: deep(r, 'png', 'RGB'), DEEP),
  '16 bits of RGB as TIFF': (lambda r: deep(r, 'tif', 'RGB'), DEEP),
  'folders of splits beside others': (
    lambda r: split(r, train=10, val=5, street=3, park=3),
    ['train, val are folders of splits', 'also park, street.', 'train.txt'],
  ),
  'folders of splits beside photos': (
    lambda r: split(r, train=10, val=5),
    ['train, val are folders of splits', 'also no folder at all.'],
  ),
  'photos in train and val': (
    lambda r: (
      write(r / 'train.txt', ''.join(f'{i:02}\n' for i in range(15))),
      write(r / 'val.txt', ''.join(f'{i:02}\n' for i in range(3, 20))),
    ),
    ['12 photo(s) are in train and in val: images/03.jpg', 'and 2 more.'],
  ),
  'a photo in train and test': (
    lambda r: (
      write(r / 'train.csv', 'images/00.jpg,masks/00.png'),
      write(r / 'test.csv', 'images/00.jpg,masks/01.png'),
    ),
    ['1 photo(s) are in train and in test: images/00.jpg'],
  ),
  'a mask of some test photos': (
    lambda r: (
      split(r, train=15, val=4, test=2),
      (r / 'masks/test/20.png').unlink(),
    ),
    ['there is no mask for: 20.'],
  ),
  'masks of a listed test that are not there': (
    lambda r: (
      write(r / 'train.csv', 'images/00.jpg,masks/00.png'),
      write(r / 'test.csv', 'images/01.jpg,mask/01.png'),
    ),
    ['there is no mask for: images/01.'],
  ),
  'no folder of masks': (
    lambda r: (r / 'masks').rename(r / 'labels'),
    [
      'no mask for: 00',
      'looked into masks/, SegmentationClassPNG/, SegmentationClass/',
      'photo_mask.png',
      'train.csv',
    ],
  ),
  'no folder of photos': (
    lambda r: (r / 'images').rename(r / 'img'),
    ['no photo for: 00', 'looked into images/, JPEGImages/'],
  ),
  'numbered classes': (
    lambda r: write(r / 'classes.txt', '0 background\n1 car\n2 lamp\n'),
    ['classes.txt', 'begins with a number (0 background, 1 car', 'delete'],
  ),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_is_told(fault, root, tmp_path):
  spoil, messages = FAULTS[fault]
  spoil(root)
  miniature.refuse('folder', root, tmp_path, *messages)


def test_what_was_left_out_is_not_missed_afterwards(
  root, tmp_path, make_config
):
  (root / 'images/03.jpg').write_bytes(b'')
  # One is tolerated, however few there are.
  dataset = prepare(
    'folder', root, tmp_path / 'out', max_bad_share=0.01, allow_partial=False
  )
  assert dataset.counts == dataset.spec.num_examples == {'train': 17, 'val': 3}
  config = make_config('folder', data_dir=str(tmp_path / 'out'))
  assert open_dataset(config) == dataset
  (root / 'images/04.jpg').write_bytes(b'')
  with pytest.raises(UserError, match='more than 1 of 21 examples are bad'):
    prepare('folder', root, tmp_path / 'again', max_bad_share=0.01)


def test_all_else_stays(root, tmp_path):
  """Published sets are read as all others read them."""
  write_photo(root / 'CamVid/train/a.png', *SIZE)
  photo = Image.open(root / 'CamVid/train/a.png')
  exif = photo.getexif()
  exif[0x0112] = 3
  photo.save(root / 'CamVid/train/a.png', exif=exif)
  save(root / 'CamVid/trainannot/a.png', np.zeros(SIZE, np.uint8))
  assert prepare('camvid', root, tmp_path / 'out').counts == {'train': 1}
