"""A run in a bucket, killed and gone on with, is the run on a disk."""

import json
import pathlib
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.preparation import into_bucket
from emanet_jax.evaluation import evaluate
from emanet_jax.prediction import predict
from emanet_jax.state import checkpoint, weights
from emanet_jax.training import train
from emanet_jax.training.metric_writer import read_metrics
from tests import tiny
from tests.data.layouts import write_label, write_photo

pytestmark = pytest.mark.usefixtures('keep_programs')
RUN, DATA = 'gs://bucket/a/run', 'gs://bucket/data'
CHANGES = {
  'data__allow_partial': True,
  'data__name': 'camvid',
  'train__steps': 3,
  'train__checkpoint_every': 1,
  'train__keep_checkpoints': 2,
}


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """CamVid with four training and two validation images."""
  root = tmp_path_factory.mktemp('published') / 'CamVid'
  for split, count in (('train', 4), ('val', 2)):
    for i in range(count):
      write_photo(root / split / f'{i}.png', seed=i)
      write_label(root / f'{split}annot' / f'{i}.png', [0, i, 10, 11])
  return str(root)


@pytest.fixture(scope='module')
def local(published, tmp_path_factory):
  """A run on the disk that nothing interrupted."""
  folder = tmp_path_factory.mktemp('local')
  config = tiny.tiny_config(
    data__data_dir=str(folder / 'data'), data__manual_dir=published, **CHANGES
  )
  train.train(config, str(folder / 'run'))
  return folder / 'run'


@pytest.fixture(scope='module')
def config(published, bucket):
  """Of a run whose data are in a bucket."""
  into_bucket.prepare('camvid', published, DATA, allow_partial=True)
  return tiny.tiny_config(data__data_dir=DATA, **CHANGES)


save = checkpoint.save


class Killed(BaseException):
  """No `except` of a run takes it."""


def save_and_die(manager, state, *others):
  """Kills a run while its second step is written."""
  save(manager, state, *others)
  if state.step == 2:
    manager.wait_until_finished()
    raise Killed


@pytest.fixture(scope='module')
def remote(config, local, bucket):
  """One in a bucket, killed while step 2 was saved, that went on to its end."""
  with (
    mock.patch.object(checkpoint, 'save', save_and_die),
    pytest.raises(Killed),
  ):
    train.train(config, RUN)
  assert [r['step'] for r in read_metrics(RUN)] == [1, 2]
  assert bucket.delete(r'a/run/checkpoints/2/(commit_success.txt|state/d/.*)')
  train.train(config, RUN)
  return RUN


def committed(bucket, step):
  return f'a/run/checkpoints/{step}/commit_success.txt' in bucket.objects


def test_it_is_the_same_bit_for_bit(local, remote, bucket):
  assert tiny.hash_tree(tiny.load_step(remote)) == tiny.hash_tree(
    tiny.load_step(local)
  )
  assert [committed(bucket, n) for n in (1, 2, 3)] == [False, True, True]


def test_its_metrics_are_the_same(local, remote):
  of_time = {'time', 'images_per_second', 'data_wait'}

  def figures(workdir):
    return [
      {k: v for k, v in record.items() if k not in of_time}
      for record in read_metrics(workdir)
    ]

  assert [r['step'] for r in figures(remote)] == [1, 2, 3, 3]
  assert figures(remote) == figures(local)


def test_its_files_are_the_same(local, remote, bucket):
  below = bucket.below('a/run')
  files = {
    str(p.relative_to(local)): p.read_bytes()
    for p in local.rglob('*')
    if p.is_file() and p.name != '.owner'
  }

  def kept(names):
    return {n for n in names if not n.startswith(('checkpoints', 'tensorb'))}

  assert kept(below) == kept(files) >= {'curves.png', 'eval/report.html'}
  for name in ('eval/scores.json', 'eval/confusion.png'):
    assert below[name] == files[name]
  assert not pathlib.Path('gs:').exists()


def test_it_is_evaluated_and_predicts_alike(
  config, local, remote, bucket, tmp_path
):
  image = np.random.default_rng(0).integers(0, 256, (33, 40, 3), np.uint8)
  Image.fromarray(image).save(tmp_path / 'photo.png')
  config = config.copy_and_resolve_references()
  config.predict.input = str(tmp_path / 'photo.png')
  config.predict.probabilities = True
  confusion = []
  for workdir in (str(local), remote):
    confusion.append(evaluate.evaluate(config, workdir, 2).confusion)
    predict.predict(config, workdir)
    assert predict.predict(config, workdir).skipped == 1
  np.testing.assert_array_equal(*confusion)
  scores = json.loads(bucket.below('a/run/eval/step_2')['scores.json'])
  assert scores['step'] == 2
  below, there = bucket.below('a/run/predict'), local / 'predict'
  for name in ('labels/photo.png', 'probabilities/photo.npz'):
    assert below[name] == (there / name).read_bytes()
  assert json.loads(below['origin.json'])['checkpoint'] == (
    f'{remote}/checkpoints/3'
  )


def test_its_weights_start_others_and_are_kept_in_buckets(
  config, local, remote
):
  variables, step = weights.load_weights(f'{remote}/checkpoints/2')
  assert step == 2
  assert tiny.hash_tree(variables) == tiny.hash_tree(
    weights.load_weights(local / 'checkpoints' / '2')[0]
  )
  weights.save_weights('gs://bucket/a/weights', variables, config, 7)
  again, step = weights.load_weights('gs://bucket/a/weights')
  assert step == 7
  assert tiny.hash_tree(again) == tiny.hash_tree(variables)
