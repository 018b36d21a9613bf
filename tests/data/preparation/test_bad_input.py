"""Every bad input is an error that names the file and the remedy.

And it leaves nothing that a later run would load.
"""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import voc2012
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from tests.data.damage import CASES, LISTS, save
from tests.data.layouts import (
  pack,
  prepare,
  write_label,
  write_photo,
)
from tests.tiny import open_dataset


@pytest.fixture
def unprivileged(tmp_path):
  """Lets file permissions count, also where the tests run as root."""
  if os.geteuid():
    yield
    return
  for folder in (tmp_path, *tmp_path.parents[:3]):
    folder.chmod(0o777)
  os.seteuid(65534)
  yield
  os.seteuid(0)


@pytest.fixture
def published_sums_off(monkeypatch):
  sums = dict.fromkeys(voc2012.SPEC.checksums, '')
  spec = dataclasses.replace(voc2012.SPEC, checksums=sums)
  monkeypatch.setattr(voc2012.Builder, 'SPEC', spec)


@pytest.mark.usefixtures('published_sums_off')
@pytest.mark.parametrize('case', CASES)
def test_bad_input_is_told_and_leaves_nothing(case, request, tmp_path):
  name, layout, break_it, parts = CASES[case]
  root = request.getfixturevalue(layout)
  break_it(root)
  if 'permission' in case:
    request.getfixturevalue('unprivileged')
  with pytest.raises(UserError) as error:
    prepare(name, tmp_path / 'raw', tmp_path / 'prepared')
  for part in parts:
    assert part in str(error.value)
  assert os.listdir(tmp_path / 'prepared') == [f'.{name}.lock']


def test_there_are_at_least_forty_such_cases():
  assert len(CASES) >= 40


def test_odd_but_sound_input_is_taken(camvid, tmp_path):
  """Names, pixel formats and sizes that must not be refused."""
  for name, mode in (
    ('with space', 'RGB'),
    ('größe 漢字', 'RGB'),
    ('grey', 'L'),
    ('cmyk', 'CMYK'),
    ('v1.0', 'RGB'),
  ):
    write_photo(camvid / 'train' / f'{name}.jpg', 50, 20, mode=mode)
    write_label(camvid / 'trainannot' / f'{name}.png', [3], 50, 20)
  save(camvid / 'train/opaque.png', np.full((1, 9, 4), 255))
  write_label(camvid / 'trainannot/opaque.png', [4], 1, 9)
  dataset = prepare('camvid', camvid, tmp_path / 'prepared')
  found = {e['id']: e for e in pipeline.evaluation_examples(dataset, 'train')}
  assert {'with space', 'größe 漢字', 'v1.0', 'opaque'} < found.keys()
  for name in ('grey', 'cmyk'):
    want = np.asarray(
      Image.open(camvid / 'train' / f'{name}.jpg').convert('RGB')
    )
    difference = np.abs(found[name]['image'].astype(int) - want)
    assert difference.mean() < 1.5
    assert want.std() > 20


@pytest.mark.parametrize('name', ['camvid', 'voc2012'])
@pytest.mark.parametrize(
  ('folder', 'part'),
  [
    ('', 'manual_dir is empty'),
    ('missing', 'is no folder'),
    ('hollow', 'is empty'),
    ('strange', 'manual directory holds'),
    ('note.txt', 'neither a folder nor'),
  ],
)
def test_manual_dir_is_checked(name, folder, part, make_config, tmp_path):
  (tmp_path / 'hollow').mkdir()
  (tmp_path / 'strange' / 'holiday').mkdir(parents=True)
  (tmp_path / 'note.txt').write_text('photos are on the other disk')
  manual_dir = str(tmp_path / folder) if folder else ''
  config = make_config(name, manual_dir=manual_dir, data_dir=str(tmp_path))
  with pytest.raises(UserError) as error:
    open_dataset(config)
  assert part in str(error.value)
  assert manual_dir in str(error.value)
  if folder != 'note.txt':
    assert 'Get ' in str(error.value)


def test_data_dir_that_is_a_file(camvid, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file.*--data_dir'):
    prepare('camvid', camvid, tmp_path / 'file')


def test_a_published_archive_with_another_checksum(voc, tmp_path):
  pack(tmp_path / 'raw', tmp_path / 'packed/VOCtrainval_11-May-2012.tar')
  with pytest.raises(UserError) as error:
    prepare('voc2012', tmp_path / 'packed', tmp_path / 'prepared')
  assert '6cd6e144f989b92b3379bac3b3de84fd' in str(error.value)
  assert 'give the folder' in str(error.value)


def write_with(setup, camvid, data_dir):
  """Prepares CamVid in a process that first runs some code."""
  code = (
    f'{setup}\n'
    'from emanet_jax.data.preparation import prepare as preparation\n'
    'from emanet_jax.errors import UserError\n'
    'try:\n'
    f'  preparation.prepare("camvid", {str(camvid)!r}, {str(data_dir)!r},'
    ' allow_partial=True)\n'
    'except UserError as error:\n'
    '  print("told:", error)\n'
  )
  return subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )


@pytest.fixture
def big_camvid(camvid):
  """CamVid with more than a megabyte of photos."""
  rng = np.random.default_rng(0)
  for i in range(4):
    noise = rng.integers(0, 256, (360, 480, 3))
    save(camvid / f'train/noise{i}.png', noise)
    write_label(camvid / f'trainannot/noise{i}.png', [i], 360, 480)
  return camvid


def test_a_quota_reached_while_writing(big_camvid, tmp_path):
  setup = (
    'import resource, signal\n'
    'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))'
  )
  result = write_with(setup, big_camvid, tmp_path / 'prepared')
  assert 'told: camvid could not be written' in result.stdout, result.stderr
  assert 'Make room' in result.stdout
  assert os.listdir(tmp_path / 'prepared') == ['.camvid.lock']
  dataset = prepare('camvid', big_camvid, tmp_path / 'prepared')
  assert dataset.counts['train'] == 7


def test_a_full_disk_while_writing(big_camvid, tmp_path):
  target = tmp_path / 'small disk'
  target.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(target)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('mounting a tmpfs needs root; the quota test covers the rest')
  try:
    result = write_with('', big_camvid, target)
    assert 'told: camvid could not be written' in result.stdout, result.stderr
    assert 'No space left' in result.stdout
    assert os.listdir(target) == ['.camvid.lock']
  finally:
    subprocess.run(['umount', str(target)], check=True)


def test_fewer_images_than_published_before_and_after(
  camvid, make_config, tmp_path
):
  config = make_config(
    'camvid', manual_dir=str(camvid), data_dir=str(tmp_path / 'prepared')
  )
  message = r'train has 3 of 367; val has 2 of 101.*allow_partial=True'
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  assert os.listdir(tmp_path / 'prepared') == ['.camvid.lock']
  config.allow_partial = True
  open_dataset(config)
  config.allow_partial = False
  with pytest.raises(UserError, match=message):
    open_dataset(config)


def test_an_absent_split_says_how_to_get_it(voc, make_config, tmp_path):
  config = make_config(
    'voc2012',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    train_split='trainval',
  )
  message = r"no split 'trainval'.*train, val, trainaug of.*VOCtrainval"
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  config.train_split = 'train'
  dataset = open_dataset(config)
  with pytest.raises(UserError, match=message):
    pipeline.evaluation_examples(dataset, 'trainval')
  config.eval_split = 'test'
  with pytest.raises(UserError, match="no split 'test'"):
    open_dataset(config)


def test_an_unlabelled_split_is_not_scored(voc, make_config, tmp_path):
  (voc / LISTS / 'test.txt').write_text('f\n')
  config = make_config(
    'voc2012_test',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    eval_split='test',
    train_split='test',
  )
  with pytest.raises(UserError, match=r'test has no labels.*Choose another'):
    open_dataset(config)


@pytest.mark.parametrize(
  ('change', 'part'),
  [
    ({'crop_size': 0}, 'config.data.crop_size is 0'),
    ({'num_threads': 0}, 'config.data.num_threads is 0'),
    ({'prefetch': -1}, 'config.data.prefetch is -1'),
    ({'scales': ()}, 'config.data.scales'),
    ({'scales': (0.5, 0.0)}, 'config.data.scales'),
  ],
)
def test_impossible_values(change, part, shapes):
  dataset, config = shapes
  config.update(change)
  with pytest.raises(UserError, match=part):
    pipeline.train_iterator(dataset, config, batch_size=2, seed=0)


def test_batch_must_divide_among_processes(shapes):
  dataset, config = shapes
  with pytest.raises(UserError, match='multiple'):
    pipeline.train_iterator(
      dataset, config, batch_size=6, seed=0, process_count=4
    )
