"""A user's own folder: each layout and split to the pixel, and its faults."""

import shutil

import numpy as np
import pytest

from emanet_jax.data.prepared import load_dataset
from emanet_jax.data.reading import pairs
from emanet_jax.data.reading.palette import visible_palette, voc_color
from tests.data.datasets import miniature
from tests.data.datasets.own_folder import (
  COLORED,
  LAYOUTS,
  SIZE,
  flat,
  save,
  table,
  write,
)
from tests.data.layouts import pack, prepare, write_photo


def as_it_is(root, tmp_path):
  return root


def in_a_folder(root, tmp_path):
  shutil.move(root, tmp_path / 'outer' / 'my set')
  return tmp_path / 'outer'


def in_archive(suffix):
  return lambda root, tmp_path: pack(
    in_a_folder(root, tmp_path), tmp_path / f'mine{suffix}'
  )


WAYS = {
  'folder': as_it_is,
  'in a folder': in_a_folder,
  'zip': in_archive('.zip'),
  'tgz': in_archive('.tgz'),
}


def check(root, wanted, tmp_path):
  dataset = prepare('folder', root, tmp_path / 'prepared', allow_partial=False)
  counts = {split: len(want) for split, want in wanted.items()}
  assert dataset.counts == dataset.spec.num_examples == counts
  for split, want in wanted.items():
    miniature.compare(dataset, split, want)
  return dataset


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout(layout, tmp_path):
  check(tmp_path / 'raw', LAYOUTS[layout](tmp_path / 'raw'), tmp_path)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('layout', ['csv', 'lists', 'strange names'])
def test_archives_and_folders_around(layout, way, tmp_path):
  wanted = LAYOUTS[layout](tmp_path / 'raw')
  (tmp_path / 'outer').mkdir()
  check(WAYS[way](tmp_path / 'raw', tmp_path), wanted, tmp_path)


def test_the_spec_is_that_of_the_folder(tmp_path):
  flat(tmp_path / 'raw')
  prepared = prepare('folder', tmp_path / 'raw', tmp_path / 'prepared')
  spec = load_dataset(prepared.directory).spec
  assert spec.name == 'folder'
  assert spec.classes == ('background', 'car', 'lamp')
  assert spec.palette == tuple(voc_color(i) for i in range(3))
  assert spec.num_examples == {'train': 18, 'val': 3}
  assert prepared.report()['splits']['train']['pixels']['lamp'] > 0.2

  write(tmp_path / 'raw/classes.txt', COLORED)
  spec = prepare('folder', tmp_path / 'raw', tmp_path / 'colored').spec
  assert spec.palette == ((0, 0, 0), (250, 120, 7), (0, 0, 9))


def test_the_division_is_told(tmp_path, monkeypatch):
  told = []
  log = lambda text, *args: told.append(text % args)  # noqa: E731
  monkeypatch.setattr(pairs.logging, 'info', log)
  flat(tmp_path / 'raw')
  prepare('folder', tmp_path / 'raw', tmp_path / 'prepared')
  divided = 'of 21, every tenth by name is for validation'
  assert sum(divided in line for line in told) == 1
  told.clear()
  table(tmp_path / 'raw', '{}.csv', '{},{}\n')
  prepare('folder', tmp_path / 'raw', tmp_path / 'listed')
  assert not any('every tenth' in line for line in told)


def photo(root, name):
  write_photo(root / name, *SIZE)


def mask(root, name, values):
  save(root / name, np.broadcast_to(np.uint8(values), SIZE + np.shape(values)))


def csv(root, *lines):
  write(root / 'train.csv', ''.join(f'{line}\n' for line in lines))


def unlink(root, folder, count):
  for path in sorted((root / folder).iterdir())[:count]:
    path.unlink()


# What is done to a sound folder, 00 to 20, and what the message must say.
FAULTS = {
  'no class list': (
    lambda r: (r / 'classes.txt').unlink(),
    ['raw holds no classes.txt', 'class name a line'],
  ),
  'an archive in the folder': (
    lambda r: pack(r, r / 'mine.zip') and (r / 'classes.txt').unlink(),
    ['raw holds no classes.txt', 'Give the archive', 'raw/mine.zip itself'],
  ),
  'photos without mask': (
    lambda r: unlink(r, 'masks', 12),
    ['raw: there is no mask for: 00, 01,', ', 09 and 2 more.', 'train.csv'],
  ),
  'masks without photo': (
    lambda r: unlink(r, 'images', 2),
    ['raw: there is no photo for: 00, 01.', 'images/ and masks/'],
  ),
  'nothing': (
    lambda r: [shutil.rmtree(r / folder) for folder in ('images', 'masks')],
    ['raw holds no image of folder', 'images/ and masks/'],
  ),
  'two photos of a name': (
    lambda r: photo(r, 'images/03.png'),
    ['one name: images/03.jpg and images/03.png.', 'rename'],
  ),
  'two masks of a name': (
    lambda r: mask(r, 'masks/03.bmp', 0),
    ['masks/03.bmp and masks/03.png.'],
  ),
  'JPEG masks': (
    lambda r: (r / 'masks/03.png').rename(r / 'masks/03.jpg'),
    ['masks cannot be JPEG', 'masks/03.jpg', 'as PNG'],
  ),
  'a list of what is not there': (
    lambda r: write(r / 'train.txt', '00\nzz\ntwo words\n'),
    ['there is no photo for: two words, zz.'],
  ),
  'a table of what is not there': (
    lambda r: csv(r, 'images/00.jpg,masks/00.png', 'images/01.jpg,01.png'),
    ['there is no mask for: images/01.'],
  ),
  'a table of JPEG masks': (
    lambda r: csv(r, 'images/00.jpg,images/01.jpg'),
    ['masks cannot be JPEG', 'images/01.jpg'],
  ),
  'three columns': (
    lambda r: csv(r, 'images/00.jpg,masks/00.png,0.5'),
    ['train.csv has a line of 3 entries, images/00.jpg, masks/00.png, 0.5'],
  ),
  'blanks that divide': (
    lambda r: write(r / 'train.txt', 'images/00.jpg my mask.png'),
    ['train.txt has a line of 3 entries', 'In .txt tabs or blanks', 'raw on.'],
  ),
  'two lists of a split': (
    lambda r: (write(r / 'val.txt', '00'), write(r / 'valid.csv', '00')),
    ['val.txt and', 'valid.csv both list val'],
  ),
  'listed twice': (
    lambda r: write(r / 'train.txt', '00\n00.jpg\n'),
    ["'00'", 'is listed twice'],
  ),
  'a mask of another size': (
    lambda r: save(r / 'masks/03.png', np.zeros((40, 30), np.uint8)),
    ['masks/03.png is 40x30', '30x40'],
  ),
  'a value of no class': (
    lambda r: mask(r, 'masks/03.png', 3),
    ['masks/03.png holds the value(s) 3', 'classes.txt names 3'],
  ),
  'colours without their names': (
    lambda r: mask(r, 'masks/03.png', (9, 8, 7)),
    ['masks/03.png', '(9, 8, 7) on 1200 pixels', '"name r g b"'],
  ),
  'a colour of no class': (
    lambda r: (
      write(r / 'classes.txt', COLORED),
      mask(r, 'masks/03.png', (9, 8, 7)),
    ),
    ['(9, 8, 7) on 1200 pixels'],
  ),
}


def test_classes_can_be_told_apart_in_pictures(tmp_path):
  root = tmp_path / 'raw'
  flat(root)
  indices = 'background 0 0 0\ncar 1 1 1\nlamp 2 2 2\nignore 255 255 255\n'
  write(root / 'classes.txt', indices)
  spec = prepare('folder', root, tmp_path / 'R').spec
  assert spec.palette == tuple(voc_color(label) for label in range(3))
  own = ((0, 0, 0), (0, 0, 9), (250, 120, 7))
  assert visible_palette(own, 3) == own


def test_a_line_of_two_files_with_blanks_in_their_names(tmp_path):
  root = tmp_path / 'raw'
  flat(root)
  for number in ('00', '01'):
    (root / f'images/{number}.jpg').rename(root / f'images/my {number} a.jpg')
    (root / f'masks/{number}.png').rename(root / f'my mask  {number}.png')
  lines = [f'images/my {n} a.jpg my mask  {n}.png' for n in ('00', '01')]
  write(root / 'train.txt', '\n'.join(lines))
  write(root / 'val.txt', 'images/02.jpg masks/02.png')
  dataset = prepare('folder', root, tmp_path / 'R')
  names = [r['id'].decode() for r in dataset.source('train')]
  assert names == ['images/my 00 a', 'images/my 01 a']


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_is_told(fault, tmp_path):
  spoil, messages = FAULTS[fault]
  flat(tmp_path / 'raw')
  spoil(tmp_path / 'raw')
  miniature.refuse('folder', tmp_path / 'raw', tmp_path, *messages)
