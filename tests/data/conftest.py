"""Miniature data sets in the published layouts, made on the fly."""

import os
import pathlib
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import get_dataset
from tests.data.layouts import write_label, write_mat, write_photo
from tests.tiny import open_dataset

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='session')
def make_config():
  """Returns a function (name, **changes) -> the `data` part of a config."""

  def make(name, **changes):
    config = ml_collections.ConfigDict(
      {
        'name': name,
        'manual_dir': '',
        'data_dir': '',
        'allow_partial': False,
        'train_split': 'train',
        'eval_split': 'val',
        'crop_size': 65,
        'scales': (0.5, 1.0, 1.5),
        'flip': True,
        'rotation': 0.0,
        'augmentations': {
          'color': dict.fromkeys(
            ('brightness', 'contrast', 'saturation', 'hue', 'blur'), 0.0
          ),
        },
        'num_threads': 2,
        'prefetch': 2,
      }
    )
    config.update(changes)
    return config

  return make


@pytest.fixture(scope='session')
def shapes_dir(tmp_path_factory, make_config):
  """A folder in which Shapes is prepared."""
  folder = tmp_path_factory.mktemp('shapes')
  open_dataset(make_config('shapes', data_dir=str(folder)))
  return str(folder)


@pytest.fixture
def shapes(shapes_dir, make_config):
  """Shapes, opened, and its config."""
  config = make_config('shapes', data_dir=shapes_dir)
  return open_dataset(config), config


@pytest.fixture(scope='session')
def real_data():
  """Returns a function: path in the folder of real data, or skip."""

  def find(part):
    default = REPOSITORY.parent / 'shared' / 'data'
    folder = pathlib.Path(os.environ.get('EMANET_DATA_DIR', default))
    if not (folder / part).is_dir():
      pytest.skip(f'no {part} in {folder}; set EMANET_DATA_DIR to run this')
    return folder

  return find


@pytest.fixture
def camvid(tmp_path):
  """CamVid with three training and two validation images."""
  root = tmp_path / 'raw' / 'CamVid'
  for split, count in (('train', 3), ('val', 2)):
    for i in range(count):
      suffix = 'png' if i % 2 else 'jpg'
      write_photo(root / split / f'{split}{i}.{suffix}', seed=i)
      write_label(root / f'{split}annot' / f'{split}{i}.png', [0, i, 10, 11])
  return root


@pytest.fixture
def voc(tmp_path):
  """VOC with ids a..f: train a b, val c, annotated by SBD a b d e (and c)."""
  root = tmp_path / 'raw' / 'VOCdevkit' / 'VOC2012'
  palette = get_dataset('voc2012').SPEC.palette
  for i, name in enumerate('abcdef'):
    write_photo(root / 'JPEGImages' / f'{name}.jpg', 30 + i, 40, seed=i)
  for i, name in enumerate('abc'):
    write_label(
      root / 'SegmentationClass' / f'{name}.png',
      [0, 20, i, 255],
      30 + i,
      palette=[*palette, *[(0, 0, 0)] * 234, (224, 224, 192)],
    )
  for i, name in enumerate('abcde'):
    write_label(root / f'SegmentationClassAug/{name}.png', [0, i], 30 + i)
  lists = root / 'ImageSets' / 'Segmentation'
  lists.mkdir(parents=True)
  (lists / 'train.txt').write_text('b\na\n')
  (lists / 'val.txt').write_text('c\n')
  return root


@pytest.fixture
def sbd(voc):
  """VOC beside SBD, which annotated a b d e; without SegmentationClassAug."""
  shutil.rmtree(voc / 'SegmentationClassAug')
  root = voc.parents[1] / 'benchmark_RELEASE'
  (root / 'dataset' / 'cls').mkdir(parents=True)
  for i, name in enumerate('abcdef'):
    label = np.resize(np.uint8([0, 5, i]), (30 + i, 40))
    write_mat(root / f'dataset/cls/{name}.mat', GTcls={'Segmentation': label})
  (root / 'dataset/train.txt').write_text('a\nd\n')
  (root / 'dataset/val.txt').write_text('e\nc\n')
  return root


@pytest.fixture
def tiny(camvid, make_config, tmp_path):
  """Three images whose label has the constant value 0, 1 or 2."""
  for i in range(3):
    path = camvid / 'trainannot' / f'train{i}.png'
    Image.fromarray(np.full((30, 40), i, np.uint8)).save(path)
  config = make_config(
    'camvid',
    manual_dir=str(camvid),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    crop_size=9,
    scales=(1.0,),
  )
  return open_dataset(config), config
