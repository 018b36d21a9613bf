"""Other data under a known name are noticed, and what stays is said."""

import json

import numpy as np
import pytest
from absl import logging

from emanet_jax.data.datasets import camvid as camvid_module
from emanet_jax.data.input import pipeline
from emanet_jax.data.preparation import prepare as preparation
from emanet_jax.data.prepared import SUMMARY
from emanet_jax.errors import UserError
from tests.data.datasets.own_folder import flat, save, write
from tests.data.layouts import pack, prepare, write_label, write_photo
from tests.tiny import open_dataset


@pytest.fixture
def own(tmp_path):
  flat(tmp_path / 'own')
  return tmp_path / 'own'


@pytest.fixture
def told(monkeypatch):
  """What is logged, as text."""
  lines = []
  for level in ('info', 'warning'):
    monkeypatch.setattr(
      logging, level, lambda text, *args: lines.append(text % args)
    )
  return lines


def fingerprints(root, out):
  dataset = prepare('folder', root, out)
  return {split: dataset.fingerprint(split) for split in dataset.counts}


def one_pixel(root):
  mask = np.zeros((30, 40), np.uint8)
  save(root / 'masks/20.png', mask)
  mask[29, 39] = 1
  save(root / 'masks/19.png', mask)


REVERSED = [f'{i:02}' for i in range(20, 0, -1) if i % 10]
OTHERS = {
  'a photo': lambda r: write_photo(r / 'images/00.jpg', seed=99),
  'a mask': one_pixel,
  'the order': lambda r: [
    write(r / f'{split}.txt', ''.join(f'{name}\n' for name in names))
    for split, names in (('train', REVERSED), ('val', ['00', '10', '20']))
  ],
  'an id': lambda r: [
    next((r / folder).glob('20.*')).rename(r / folder / f'20x.{suffix}')
    for folder, suffix in (('images', 'jpg'), ('masks', 'png'))
  ],
}


@pytest.mark.parametrize('change', OTHERS)
def test_a_fingerprint_is_of_the_data(change, own, tmp_path):
  before = fingerprints(own, tmp_path / 'a')
  assert before == fingerprints(own, tmp_path / 'b')
  assert all(len(value) == 64 for value in before.values())
  assert before['train'] != before['val']
  archive = pack(own, tmp_path / 'own.zip')
  assert before == fingerprints(archive, tmp_path / 'c')
  OTHERS[change](own)
  assert fingerprints(own, tmp_path / 'd') != before


def test_a_run_does_not_go_on_with_other_data(own, tmp_path, make_config):
  def iterator(out):
    prepare('folder', own, tmp_path / out)
    config = make_config('folder', data_dir=str(tmp_path / out))
    return pipeline.train_iterator(
      open_dataset(config), config, batch_size=2, seed=0
    )

  state = json.loads(json.dumps(iterator('one').get_state()))
  iterator('same').set_state(state)
  write_photo(own / 'images/01.jpg', seed=99)
  with pytest.raises(UserError, match=r'fingerprint: then \''):
    iterator('photo').set_state(state)
  write(own / 'classes.txt', 'background\nlamp\ncar\n')
  with pytest.raises(UserError, match=r"classes: then \['background', 'car'"):
    iterator('classes').set_state(state)


def test_a_set_from_before_there_were_fingerprints(own, tmp_path):
  dataset = prepare('folder', own, tmp_path / 'out')
  path = dataset.directory / SUMMARY
  summary = json.loads(path.read_text())
  del summary['listing']
  for split in summary['report']['splits'].values():
    del split['fingerprint']
  path.write_text(json.dumps(summary))
  assert prepare('folder', own, tmp_path / 'out').fingerprint('train') == ''


def test_a_second_preparation_says_that_it_does_nothing(own, tmp_path, told):
  first = prepare('folder', own, tmp_path / 'out')
  told.clear()
  assert prepare('folder', own, tmp_path / 'out') == first
  text = '\n'.join(told)
  assert (
    f'folder is prepared already (train 18, val 3) from {own} and is left as '
    f'it is; delete {first.directory} to prepare anew.\ntrain: 18 images'
  ) in text


def test_what_is_prepared_in_the_folder_itself_is_no_change(own):
  first = prepare('folder', own, own / 'prepared')
  assert prepare('folder', own, own / 'prepared') == first


FOLDER_CHANGES = {
  'a photo more': lambda r: [
    write_photo(r / 'images/21.jpg'),
    write_label(r / 'masks/21.png', [0]),
  ],
  'a photo less': lambda r: [
    (r / 'images/07.jpg').unlink(),
    (r / 'masks/07.png').unlink(),
  ],
  'another mask': one_pixel,
  'other classes': lambda r: write(r / 'classes.txt', 'background\na\nb\n'),
}


@pytest.mark.parametrize('change', FOLDER_CHANGES)
def test_changed_files_are_not_passed_over(change, own, tmp_path, make_config):
  dataset = prepare('folder', own, tmp_path / 'out')
  FOLDER_CHANGES[change](own)
  config = make_config(
    'folder', manual_dir=str(own), data_dir=str(tmp_path / 'out')
  )
  for again in (
    lambda: prepare('folder', own, tmp_path / 'out'),
    lambda: open_dataset(config),
  ):
    with pytest.raises(UserError, match='removed or changed since') as error:
      again()
    assert f'Delete {dataset.directory} to prepare' in str(error.value)
  config.manual_dir = ''
  assert open_dataset(config) == dataset


def test_a_changed_archive_is_not_passed_over(own, tmp_path):
  archive = pack(own, tmp_path / 'own.zip')
  first = prepare('folder', archive, tmp_path / 'out')
  assert prepare('folder', archive, tmp_path / 'out') == first
  write_photo(own / 'images/01.jpg', 60, 80)
  pack(own, tmp_path / 'new.zip').rename(archive)
  with pytest.raises(UserError, match='removed or changed since'):
    prepare('folder', archive, tmp_path / 'out')


def test_splits_that_came_later_are_named(camvid, tmp_path, told):
  dataset = prepare('camvid', camvid, tmp_path / 'out')
  assert any(f'{camvid} lacks test of camvid' in line for line in told)
  told.clear()
  assert prepare('camvid', camvid, tmp_path / 'out') == dataset
  assert not any('now holds' in line for line in told)
  write_photo(camvid / 'test/a.png')
  write_label(camvid / 'testannot/a.png', [0])
  assert prepare('camvid', camvid, tmp_path / 'out') == dataset
  (line,) = [line for line in told if 'now holds' in line]
  assert f'{camvid} now holds test, too, which {dataset.directory}' in line
  # And files that are gone are no matter.
  assert prepare('camvid', tmp_path / 'gone', tmp_path / 'out') == dataset


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('camvid', {'eval_split': 'test'}, "no split 'test'.*holds train, val of"),
    ('folder', {'eval_split': 'test'}, r"no split 'test'.*holds train, val\."),
    ('voc2012_test', {'train_split': 'test'}, 'test has no labels'),
  ],
)
def test_a_split_that_cannot_be_used_is_told_before_the_work(
  name, changes, message, request, tmp_path, make_config, monkeypatch
):
  layout = {'folder': 'own', 'voc2012_test': 'voc'}.get(name, name)
  root = request.getfixturevalue(layout)
  if name == 'voc2012_test':
    (root / 'ImageSets/Segmentation/test.txt').write_text('f\n')
  monkeypatch.setattr(preparation, '_write', lambda *a: pytest.fail('wrote'))
  config = make_config(
    name,
    manual_dir=str(root),
    data_dir=str(tmp_path / 'out'),
    allow_partial=True,
    **changes,
  )
  if name == 'voc2012_test':
    config.eval_split = 'test'
  with pytest.raises(UserError, match=message):
    open_dataset(config)


def test_a_fault_of_the_program_is_not_taken_for_a_full_disk(
  camvid, tmp_path, monkeypatch
):
  def fail(self, file):
    raise RuntimeError('a fault')

  monkeypatch.setattr(camvid_module.Builder, 'read_label', fail)
  with pytest.raises(Exception, match='train0') as error:
    prepare('camvid', camvid, tmp_path / 'out')
  assert not isinstance(error.value, UserError)
  assert isinstance(error.value.__cause__, RuntimeError)
