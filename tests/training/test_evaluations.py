"""Evaluations on the way never end a training run for lack of memory."""

import dataclasses
import math
import pathlib
from unittest import mock

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from emanet_jax.data.datasets import get_dataset
from emanet_jax.inference.batching import LackOfMemoryError
from emanet_jax.inference.predictor import Protocol
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import device_memory, sharding
from emanet_jax.runtime.preemption import StopNotice
from emanet_jax.state.train_state import TrainState
from emanet_jax.training.evaluations import Evaluations
from emanet_jax.training.metric_writer import MetricWriter, evaluated_scores
from tests import tiny
from tests.compilations import compilations

SPEC = get_dataset('shapes').SPEC
CLASSES = SPEC.num_classes


def test_a_lack_of_memory_is_told_and_not_run_into_again(tmp_path, caplog):
  evaluations = Evaluations.__new__(Evaluations)
  evaluations.scores = {2: 0.5}
  evaluations._protocol = Protocol(window=33, stride=24)
  evaluations._mesh, evaluations._every = sharding.create_mesh(), 2
  evaluations._run_split = mock.Mock(side_effect=LackOfMemoryError('too large'))
  manager = mock.create_autospec(ocp.CheckpointManager, instance=True)
  state = TrainState(jnp.int32(4), {'w': jnp.ones(2)}, {}, {})
  caplog.set_level('INFO', logger='absl')
  with MetricWriter(tmp_path) as writer:
    assert evaluations.run(state, manager, writer, StopNotice()) is None
  assert 'step 4 is not scored: too large' in caplog.text
  assert math.isnan(evaluations.scores[4])
  # A run that goes on takes it for evaluated, and not for the best.
  found = evaluated_scores(tmp_path, 4)
  assert list(found) == [4]
  assert math.isnan(found[4])
  evaluations.tell_best()
  assert 'best so far: mIoU 50.00, step 2 (one scale, windows' in caplog.text


@pytest.fixture(scope='module')
def run(network):
  """Evaluations by windows of a run that asks for many views, and a state."""
  model, variables = network
  images = [np.full((h, 40, 3), h, np.uint8) for h in (30, 50, 60)]
  records = tuple(
    {
      'id': b'',
      'image': cv2.imencode('.png', image)[1].tobytes(),
      'label': cv2.imencode('.png', image[..., 0] % CLASSES)[1].tobytes(),
    }
    for image in images
  )
  dataset = tiny.Listed(SPEC, pathlib.Path('none'), {'val': 3}, records)
  config = tiny.tiny_config(
    eval__multi_scale=True,
    eval__window=33,
    eval__window_stride=24,
    mesh__space=2,
  )
  mesh = sharding.create_mesh()
  variables = jax.device_put(variables, sharding.replicated(mesh))
  params = variables.pop('params')
  state = TrainState(jnp.int32(0), params, variables, {})
  return Evaluations(config, model, dataset, mesh, scores={}), state


@pytest.fixture(scope='module')
def network():
  model = create_model(tiny.tiny_config().model, CLASSES)
  return model, tiny.random_variables(model)


def test_a_run_is_scored_by_its_windows(run, monkeypatch, caplog, tmp_path):
  """And by no other views; what plans its memory is what evaluates.

  With images split among devices as the run says.
  """
  evaluations, state = run
  protocol = Protocol(window=33, stride=24)
  assert evaluations.conditions(4).protocol == protocol
  caplog.set_level('INFO', logger='absl')
  monkeypatch.setattr(device_memory, 'capacity', lambda: 10**12)
  manager = mock.create_autospec(ocp.CheckpointManager, instance=True)
  spaces = tiny.batches_spaces(monkeypatch)
  with compilations('view') as compiled, MetricWriter(tmp_path) as writer:
    evaluations.check_memory(state)
    assert len(compiled) == 1
    found = evaluations.run(state, manager, writer, StopNotice())
    assert len(compiled) == 1
  assert set(spaces) == {2}
  assert found.num_images == 3
  assert 'val is evaluated in 1 shape(s), each compiled once' in caplog.text
  assert 'the largest batch: 4 of 41×65' in caplog.text
  assert f'step 0, {protocol}: mIoU' in caplog.text


def test_images_beyond_the_memory_are_refused_before_training(
  run, monkeypatch, caplog
):
  evaluations, state = run
  monkeypatch.setattr(device_memory, 'capacity', lambda: 10**5)
  refused = r'4 image.* padded to 41×65 would need.*GB of 0.0; look through'
  with pytest.raises(LackOfMemoryError, match=refused):
    evaluations.check_memory(state)
  # What goes on trains; else it would be restarted for ever.
  caplog.clear()
  evaluations.check_memory(dataclasses.replace(state, step=jnp.int32(4)))
  assert 'would need, with the training state' in caplog.text


def test_a_program_needs_its_results_and_what_it_computes_with():
  x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
  double = jax.jit(lambda x: (x @ x) * 2).lower(x).compile()
  assert 4 * 256**2 <= device_memory.needed(double) <= 3 * 4 * 256**2
  in_place = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
  assert device_memory.needed(in_place) < 4 * 256**2
  assert device_memory.held({'a': jnp.ones(3), 'b': jnp.int8(1)}) == 13
  assert device_memory.capacity() is None  # a CPU
