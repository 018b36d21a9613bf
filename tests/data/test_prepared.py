"""A data set appears under its name only when it is complete."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from emanet_jax.data.datasets import camvid as camvid_module
from emanet_jax.data.input import pipeline
from emanet_jax.data.preparation import prepare as preparation
from emanet_jax.data.preparation.statistics import Statistics, format_report
from emanet_jax.data.prepared import load_dataset
from emanet_jax.data.reading import builder
from emanet_jax.data.reading.files import Files
from emanet_jax.errors import UserError
from tests.data.layouts import (
  examples,
  pack,
  prepare,
  write_label,
  write_photo,
)
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


# Prepares Shapes and waits for a line on stdin before val_0003.
SLOW = """
import sys
from emanet_jax.data.preparation import prepare as preparation
from emanet_jax.data.datasets import shapes
draw = shapes.draw_example
def slow(split, index):
  if split == 'val' and index == 3:
    print('reached', flush=True)
    sys.stdin.readline()
  return draw(split, index)
shapes.draw_example = slow
preparation.prepare('shapes', '', sys.argv[1])
"""


@contextlib.contextmanager
def held_preparation(data_dir):
  """A process in the middle of preparing Shapes."""
  with subprocess.Popen(
    [sys.executable, '-c', SLOW, str(data_dir)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert any('reached' in line for line in process.stdout)
    yield process


def test_a_killed_preparation_leaves_nothing_to_load(make_config, tmp_path):
  with held_preparation(tmp_path) as process:
    assert not (tmp_path / 'shapes').exists()
    os.kill(process.pid, signal.SIGKILL)
  assert not (tmp_path / 'shapes').exists()
  left = list((tmp_path / '.shapes.preparing').rglob('*shapes-train*'))
  assert left  # There was something that must not be loaded.
  config = make_config('shapes', data_dir=str(tmp_path))
  assert open_dataset(config).counts == {'train': 512, 'val': 96}
  assert sorted(os.listdir(tmp_path)) == ['.shapes.lock', 'shapes']


def test_a_second_process_waits_for_the_first(make_config, tmp_path):
  with held_preparation(tmp_path) as first:
    second = threading.Thread(
      target=open_dataset,
      args=(make_config('shapes', data_dir=str(tmp_path)),),
    )
    second.start()
    second.join(1.0)
    assert second.is_alive()
    first.stdin.write('go on\n')
    first.stdin.flush()
    second.join(60)
    assert not second.is_alive()
    assert first.wait(60) == 0
  directory = preparation.prepared_directory('shapes', str(tmp_path))
  summary = json.loads((directory / 'preparation.json').read_text())
  assert summary['report']['splits']['train']['images'] == 512


def test_shards_keep_every_example_in_order(camvid, tmp_path, monkeypatch):
  names = [f'x{i:02d}' for i in range(23)]
  for i, name in enumerate(names):
    write_photo(camvid / 'train' / f'{name}.jpg', seed=i)
    write_label(camvid / 'trainannot' / f'{name}.png', [i % 11])
  photo = (camvid / 'train' / 'x00.jpg').stat().st_size
  monkeypatch.setattr(builder, '_SHARD_BYTES', 4 * photo)
  dataset = prepare('camvid', camvid, tmp_path / 'prepared')
  assert len(list(dataset.directory.glob('camvid-train*'))) >= 5
  found = examples(dataset, 'train')
  assert list(found) == ['train0', 'train1', 'train2', *names]
  for i, name in enumerate(names):
    assert (found[name][1] == i % 11).all()


def test_more_than_a_shard_of_memory_is_never_held(camvid, tmp_path):
  """The reading threads stay a bounded number of examples ahead."""
  for i in range(200):
    write_photo(camvid / 'train' / f'x{i:03d}.jpg', seed=i)
    write_label(camvid / 'trainannot' / f'x{i:03d}.png', [1])
  builder = camvid_module.Builder(data_dir=tmp_path, file_format='array_record')
  builder.spec = camvid_module.SPEC
  items = builder.find(Files(camvid, {}, tmp_path))['train']
  builder.statistics = Statistics(builder.spec, {'train': len(items)}, 0.0)
  read = []
  original = builder.read
  builder.read = lambda item: (read.append(item.id), original(item))[1]
  stream = builder._examples('train', items)
  for _ in range(3):
    next(stream)
  time.sleep(0.5)
  assert 3 <= len(read) <= 3 + 5 * (os.cpu_count() or 1) + 1


def test_bad_examples_are_left_out_and_listed(camvid, tmp_path):
  for i in range(40):
    write_photo(camvid / 'train' / f'x{i:02d}.jpg', seed=i)
    write_label(camvid / 'trainannot' / f'x{i:02d}.png', [i % 11])
  (camvid / 'train' / 'x07.jpg').write_bytes(b'')
  (camvid / 'valannot' / 'val1.png').write_bytes(b'no image')
  for share in (0.0, 0.03):
    with pytest.raises(UserError, match=r'x07\.jpg|val1\.png') as error:
      prepare('camvid', camvid, tmp_path / 'out', max_bad_share=share)
  # 0.03 of 45 examples are one, and there are two.
  assert 'more than 1 of 45 examples are bad' in str(error.value)
  assert 'x07.jpg' in str(error.value)
  assert 'val1.png' in str(error.value)
  dataset = prepare('camvid', camvid, tmp_path / 'out', max_bad_share=0.05)
  assert dataset.counts == {'train': 42, 'val': 1}
  assert 'x07' not in examples(dataset, 'train')
  bad = dataset.report()['bad']
  assert [line.split(':')[0] for line in bad] == ['train', 'val']
  assert 'x07.jpg' in bad[0]
  assert 'val1.png' in bad[1]


def test_all_examples_of_a_shard_may_be_bad(camvid, tmp_path, monkeypatch):
  monkeypatch.setattr(builder, '_SHARD_BYTES', 1)
  (camvid / 'train' / 'train1.png').write_bytes(b'')
  dataset = prepare('camvid', camvid, tmp_path / 'out', max_bad_share=0.5)
  assert list(examples(dataset, 'train')) == ['train0', 'train2']
  assert list(examples(dataset, 'val')) == ['val0', 'val1']


def test_a_split_without_a_sound_example(camvid, tmp_path):
  for i in range(2):
    (camvid / 'val' / f'val{i}.{"png" if i % 2 else "jpg"}').write_bytes(b'')
  with pytest.raises(
    UserError, match=r'no example of val is sound:[\s\S]*val1'
  ):
    prepare('camvid', camvid, tmp_path / 'out', max_bad_share=1.0)
  assert os.listdir(tmp_path / 'out') == ['.camvid.lock']


def test_one_own_folder_is_not_taken_for_another(tmp_path, make_config):
  for name in ('one', 'two'):
    write_photo(tmp_path / name / 'images' / 'a.png')
    write_photo(tmp_path / name / 'images' / 'b.png')
    write_label(tmp_path / name / 'masks' / 'a.png', [0, 1])
    write_label(tmp_path / name / 'masks' / 'b.png', [0, 1])
    (tmp_path / name / 'classes.txt').write_text('ground\ncat\n')
  dataset = prepare('folder', tmp_path / 'one', tmp_path / 'out')
  assert dataset.origin == str(tmp_path / 'one')
  assert prepare('folder', tmp_path / 'one', tmp_path / 'out') == dataset
  config = make_config(
    'folder', data_dir=str(tmp_path / 'out'), manual_dir=str(tmp_path / 'two')
  )
  for again in (
    lambda: prepare('folder', tmp_path / 'two', tmp_path / 'out'),
    lambda: open_dataset(config),
  ):
    with pytest.raises(UserError, match=r'from .*one, not from .*two'):
      again()
  config.manual_dir = ''
  assert open_dataset(config) == dataset


def test_the_report_counts_what_was_prepared(camvid, tmp_path):
  write_photo(camvid / 'train' / 'wide.png', 10, 500)
  write_label(camvid / 'trainannot' / 'wide.png', [3, 3, 3, 11], 10, 500)
  for i in range(3):
    write_label(camvid / 'trainannot' / f'train{i}.png', [0, 0, 0, 8])
  report = prepare('camvid', camvid, tmp_path / 'out').report()
  train = report['splits']['train']
  pixels = 3 * 30 * 40 + 10 * 500
  assert train['images'] == 4
  assert train['pixels']['sky'] == pytest.approx(3 * 900 / pixels)
  assert train['pixels']['car'] == pytest.approx(3 * 300 / pixels)
  assert train['pixels']['road'] == pytest.approx(3750 / pixels)
  assert train['ignored'] == pytest.approx(1250 / pixels)
  assert train['longer_side'] == {'0–127': 3, '384–511': 1}
  assert train['largest'] == [30, 500]
  assert set(train['pixels']) == set(camvid_module.SPEC.classes)
  text = format_report(report)
  assert 'train: 4 images' in text
  assert f'road {100 * 3750 / pixels:.2f} %' in text
  assert 'absent: building, pole, pavement' in text
  assert f'ignored: {100 * 1250 / pixels:.2f} %' in text


def test_an_unlabelled_split_is_all_ignored(voc, tmp_path):
  (voc / 'ImageSets' / 'Segmentation' / 'test.txt').write_text('f\nd\n')
  dataset = prepare('voc2012_test', voc, tmp_path / 'out')
  found = examples(dataset, 'test')
  assert list(found) == ['f', 'd']
  image, label = found['f']
  assert image.shape == (35, 40, 3)
  assert label.shape == (35, 40)
  assert (label == 255).all()
  assert dataset.report()['splits']['test']['ignored'] == 1


def test_the_spec_is_kept_with_the_records(camvid, tmp_path):
  written = prepare('camvid', camvid, tmp_path / 'out')
  assert load_dataset(written.directory) == written
  assert written.spec == camvid_module.SPEC


def test_an_archive_gives_what_its_folder_gives(voc, tmp_path):
  unpacked = prepare('voc2012', tmp_path / 'raw', tmp_path / 'a')
  archive = pack(tmp_path / 'raw', tmp_path / 'any name.zip')
  packed = prepare('voc2012', archive, tmp_path / 'b')
  assert packed.counts == unpacked.counts
  for split in packed.counts:
    for a, b in zip(packed.source(split), unpacked.source(split), strict=True):
      assert a == b


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
