"""The device prefetch: one batch ahead, never more, and honest about waits."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.data.datasets import shapes
from emanet_jax.data.input.iterator import TrainIterator
from emanet_jax.data.prepared import Dataset
from emanet_jax.evaluation import evaluate
from emanet_jax.runtime import sharding
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import train
from emanet_jax.training.metric_writer import read_metrics
from emanet_jax.training.prefetch import DevicePrefetch
from tests import tiny

BATCH = 4


class Numbered(TrainIterator):
  """Batches filled with their number, each of which takes some seconds."""

  def __init__(self, seconds=0.0, fails_at=None):
    self.taken, self.closed = 0, False
    self._seconds, self._fails_at = seconds, fails_at

  def __next__(self):
    if self.taken == self._fails_at:
      raise OSError('the disk is gone')
    time.sleep(self._seconds)
    self.taken += 1
    return {'image': np.full((BATCH, 3), self.taken, np.uint8)}

  def get_state(self):
    return {'position': BATCH * self.taken}

  def close(self):
    self.closed = True


@pytest.fixture
def mesh():
  return sharding.create_mesh(jax.devices('cpu')[:2])


def settle(source, taken):
  end = time.monotonic() + 10
  while source.taken < taken and time.monotonic() < end:
    time.sleep(0.005)
  time.sleep(0.05)  # in which it could go on
  assert source.taken == taken


def test_one_batch_is_loaded_ahead_and_none_beyond_the_last(mesh):
  source = Numbered()
  batches = DevicePrefetch(source, mesh, count=3)
  for number in (1, 2, 3):
    settle(source, number)
    assert batches.ready()
    batch = next(batches)
    assert (np.asarray(batch['image']) == number).all()
    assert len(batch['image'].sharding.device_set) == 2
  settle(source, 3)
  with pytest.raises(StopIteration):
    next(batches)
  batches.close()


def test_the_state_is_that_of_the_batches_taken(mesh):
  source = Numbered()
  batches = DevicePrefetch(source, mesh, count=9)
  assert batches.get_state() == {'position': 0}
  for number in (1, 2):
    next(batches)
    settle(source, number + 1)
    assert batches.get_state() == {'position': number * BATCH}
  batches.close()


def test_none_is_loaded_for_a_finished_run(mesh):
  source = Numbered()
  DevicePrefetch(source, mesh, count=0).close()
  assert source.taken == 0


def test_an_error_of_the_input_reaches_the_step_that_needs_it(mesh):
  batches = DevicePrefetch(Numbered(fails_at=1), mesh, count=3)
  next(batches)
  with pytest.raises(OSError, match='the disk is gone'):
    next(batches)
  batches.close()


def test_close_leaves_no_thread(mesh):
  before = set(threading.enumerate())
  batches = DevicePrefetch(Numbered(0.1), mesh, count=9)
  next(batches)
  assert set(threading.enumerate()) > before
  batches.close()
  assert set(threading.enumerate()) == before


def slow_step(seconds):
  """A step that keeps the device busy while the host goes on."""

  def wait(x):
    time.sleep(seconds)
    return x

  @jax.jit
  def step(state, batch, rng):
    image = batch['image'][0, 0].astype(jnp.float32)
    loss = jax.pure_callback(wait, jax.ShapeDtypeStruct((), 'float32'), image)
    state = state.replace(step=state.step + jnp.int32(loss > 0))
    return state, {'loss': loss}

  return step


@pytest.fixture
def run(monkeypatch, tmp_path):
  """Returns a function that runs train.py's loop over stand-ins."""

  def run(data_seconds, step_seconds, steps=12):
    source, saved = Numbered(data_seconds), []
    state = TrainState(jnp.zeros((), jnp.int32), {}, {}, {})
    dataset = Dataset(shapes.SPEC, tmp_path, {})

    def evaluated(*unused, **also_unused):
      raise SystemExit('trained')

    for owner, name, value in (
      (train.checks, 'open_dataset', lambda *a, **k: dataset),
      (train.pipeline, 'train_iterator', lambda *a, **k: source),
      (train, '_create_loss', lambda *a, **k: None),
      (train, 'first_or_latest', lambda *a, **k: state),
      (train, 'compile_step', lambda *a, **k: slow_step(step_seconds)),
      (train.checkpoint, 'save', lambda *a: saved.append((a[1].step, a[2]))),
      (train.Evaluations, 'check_memory', lambda *a: None),
      (evaluate, 'run_split', evaluated),
    ):
      monkeypatch.setattr(owner, name, value)
    config = tiny.tiny_config(
      train__steps=steps, train__checkpoint_every=5, train__log_every=steps
    )
    with pytest.raises(SystemExit, match='trained'):
      train.train(config, str(tmp_path))
    return source, saved, read_metrics(tmp_path)[-1]['data_wait']

  return run


def test_checkpoints_hold_the_position_of_their_step(run):
  source, saved, _ = run(0.0, 0.01)
  assert [int(step) for step, _ in saved] == [5, 10, 12]
  for step, position in saved:
    assert position == {'position': int(step) * BATCH}
  assert source.taken == 12
  assert source.closed


@pytest.mark.parametrize(
  ('data_seconds', 'step_seconds', 'low', 'high'),
  [
    (0.01, 0.1, 0.0, 0.15),  # The host keeps up.
    (0.2, 0.1, 0.35, 0.65),  # Half of the time the device has no work.
    (0.4, 0.001, 0.7, 1.0),  # Hardly ever has it any.
  ],
)
def test_data_wait_is_the_share_without_work_for_the_device(
  run, data_seconds, step_seconds, low, high
):
  *_, data_wait = run(data_seconds, step_seconds)
  assert low <= data_wait <= high
