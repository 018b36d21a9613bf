"""A data set appears under its name only when it is complete."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from emanet_jax.data import pipeline
from emanet_jax.errors import UserError
from tests.tiny import open_dataset


def test_a_prepared_set_needs_no_manual_dir(tiny, camvid):
  _, config = tiny
  camvid.rename(camvid.parent / 'gone')
  config.manual_dir = ''
  assert open_dataset(config).counts == {'train': 3, 'val': 2}


def test_data_dir_defaults_to_the_current_folder(
  make_config, shapes_dir, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'data').symlink_to(shapes_dir)
  dataset = open_dataset(make_config('shapes'))
  assert dataset.num_examples('train') == 512


def test_a_failed_preparation_leaves_nothing_to_load(
  camvid, make_config, tmp_path
):
  good = (camvid / 'valannot' / 'val1.png').read_bytes()
  (camvid / 'valannot' / 'val1.png').write_bytes(b'no image')
  config = make_config(
    'camvid',
    manual_dir=str(camvid),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
  )
  for _ in range(2):
    with pytest.raises(UserError, match=r'val1\.png'):
      open_dataset(config)
  (camvid / 'valannot' / 'val1.png').write_bytes(good)
  assert open_dataset(config).counts == {'train': 3, 'val': 2}


def test_a_killed_preparation_leaves_nothing_to_load(make_config, tmp_path):
  code = (
    'import sys\n'
    'from emanet_jax.data.datasets import shapes\n'
    'draw = shapes.draw_example\n'
    'def slow(split, index):\n'
    '  if split == "val" and index == 3:\n'
    '    print("reached", flush=True)\n'
    '    sys.stdin.read()\n'
    '  return draw(split, index)\n'
    'shapes.draw_example = slow\n'
    f'shapes.Builder(data_dir={str(tmp_path)!r}, file_format="array_record")'
    '.download_and_prepare()\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert any('reached' in line for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
  left = [p.name for p in pathlib.Path(tmp_path, 'shapes').iterdir()]
  assert len(left) == 1
  assert left[0].startswith('incomplete')
  config = make_config('shapes', data_dir=str(tmp_path))
  assert open_dataset(config).counts == {'train': 512, 'val': 96}


@pytest.mark.parametrize('damage', ['cut', 'missing', 'no info'])
def test_damaged_records_are_told(damage, camvid, make_config, tmp_path):
  config = make_config(
    'camvid',
    manual_dir=str(camvid),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
  )
  directory = open_dataset(config).directory
  records = next(directory.glob('*train*'))
  if damage == 'cut':
    records.write_bytes(records.read_bytes()[:-200])
  elif damage == 'missing':
    records.unlink()
  else:
    (directory / 'dataset_info.json').unlink()

  def start():
    dataset = open_dataset(config)
    pipeline.train_iterator(dataset, config, batch_size=1, seed=0)

  with pytest.raises(UserError, match='Delete') as error:
    start()
  assert str(directory) in str(error.value)
