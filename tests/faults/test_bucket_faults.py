"""What a run in a bucket meets: damage, no right to read, a restart."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.state import background_saves, checkpoint, integrity
from emanet_jax.state.train_state import TrainState
from emanet_jax.training.metric_writer import MetricWriter, read_metrics
from tests import tiny


def state(step):
  head = {'kernel': jnp.arange(12.0).reshape(3, 4) + step}
  return TrainState(jnp.int32(step), {'head': head}, {}, {'m': jnp.ones(2)})


@pytest.fixture
def run(bucket, tmp_path):
  """A run of the steps 2, 4 and 6."""
  name = tmp_path.name  # of no other test
  with checkpoint.open_manager(f'gs://bucket/{name}', 9) as manager:
    for step in (2, 4, 6):
      checkpoint.save(manager, state(step), {'at': step}, tiny.tiny_config())
  return name


def restore(manager):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  checkpoint.check_config(manager, tiny.tiny_config())
  shardings = jax.tree.map(lambda _: sharding, state(0))
  abstract = checkpoint.abstract_like(state(0), shardings)
  return checkpoint.restore(manager, abstract, iterator)


@pytest.mark.parametrize(
  'pattern',
  [r'state/manifest\.ocdbt', r'data/metadata', '_CHECKPOINT_METADATA'],
)
def test_a_damaged_step_is_set_aside(pattern, run, bucket):
  assert bucket.delete(f'{run}/checkpoints/6/{pattern}')
  with checkpoint.open_manager(f'gs://bucket/{run}', 9) as manager:
    with pytest.raises(integrity.DamagedError, match=r'checkpoints/6 is damag'):
      restore(manager)
    aside = integrity.set_aside(manager, 6)
    assert str(aside) == f'gs://bucket/{run}/checkpoints/6.damaged'
    assert manager.all_steps() == [2, 4]
    assert jax.tree.all(
      jax.tree.map(lambda a, b: (a == b).all(), restore(manager), state(4))
    )
    checkpoint.save(manager, state(6), {'at': 6}, tiny.tiny_config())
    manager.wait_until_finished()
  folders = {name.split('/')[0] for name in bucket.below(f'{run}/checkpoints')}
  assert folders == {'2', '4', '6', '6.damaged'}


def test_what_cannot_be_read_is_no_damage(run, bucket):
  held = dict(bucket.objects)
  with checkpoint.open_manager(f'gs://bucket/{run}') as manager:
    bucket.refused.add('GET')
    try:
      with pytest.raises(UserError, match='6 cannot be read') as error:
        restore(manager)
    finally:
      bucket.refused.clear()
    assert not isinstance(error.value, integrity.DamagedError)
  assert bucket.objects == held


def test_a_save_that_is_lost_is_told_with_those_that_are_not(run, bucket):
  with pytest.raises(UserError) as error:
    lose(f'gs://bucket/{run}', bucket)
  assert 'Complete steps are there: 2, 4, 6.' in str(error.value)
  assert len(str(error.value).splitlines()) == 1


def lose(workdir, bucket):
  manager = checkpoint.open_manager(workdir, 9)
  with background_saves.closing(manager):
    bucket.refused.add('POST')
    try:
      checkpoint.save(manager, state(8), {'at': 8}, tiny.tiny_config())
      background_saves.finish(manager)
    finally:
      bucket.refused.clear()


def test_a_run_that_does_not_exist_holds_no_checkpoint(bucket):
  with checkpoint.open_manager('gs://bucket/nothing/here') as manager:
    assert manager.latest_step() is None
  bucket.refused.add('GET')
  try:
    with pytest.raises(
      UserError, match=r'^gs://bucket/a cannot be used: .*Forb'
    ):
      checkpoint.open_manager('gs://bucket/a')
  finally:
    bucket.refused.clear()


def test_metrics_are_whole_at_each_record_and_after_a_restart(bucket):
  folder = 'gs://bucket/metrics/run'
  writer = MetricWriter(folder, 0)
  for step in (1, 2, 3):
    writer.write(step, 'train', {'loss': float(step)})
    assert [r['step'] for r in read_metrics(folder)] == [*range(1, step + 1)]
  writer.close()
  bucket.objects['metrics/run/metrics.jsonl'] += b'{"torn'
  with MetricWriter(folder, 2) as writer:
    writer.write(3, 'train', {'loss': 30.0})
  assert [(r['step'], r['loss']) for r in read_metrics(folder)] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]
  files = bucket.below('metrics/run/tensorboard').values()
  assert sorted(map(sorted, map(scalars, files))) == [
    [(1, 1.0), (2, 2.0), (3, 3.0)],
    [(3, 30.0)],
  ]


def scalars(data):
  """Of TFRecords: length (8), checksum (4), data, checksum (4)."""
  while data:
    length = int.from_bytes(data[:8], 'little')
    event = event_pb2.Event.FromString(data[12 : 12 + length])
    data = data[16 + length :]
    yield from ((event.step, v.simple_value) for v in event.summary.value)
