"""Weights alone: written, read from wherever they lie, and started from."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding
from emanet_jax.state import checkpoint, weights
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import start
from emanet_jax.training.optimizers import create_optimizer
from tests import tiny


@pytest.fixture(scope='module')
def variables():
  """Two of them: of the steps 2 and 5 of a run."""
  first = tiny.random_variables(create_model(tiny.tiny_config().model, 7))
  return first, jax.tree.map(lambda x: x + 1, first)


@pytest.fixture(scope='module')
def workdir(variables, tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  for step, tree in zip((2, 5), variables, strict=True):
    with checkpoint.open_manager(folder, 2) as manager:
      state = {'params': tree['params'], 'model_state': _rest(tree)}
      manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
      )
  return folder


def _rest(tree):
  return {k: v for k, v in tree.items() if k != 'params'}


def assert_equal(got, expected):
  got, expected = (traverse_util.flatten_dict(x) for x in (got, expected))
  assert got.keys() == expected.keys()
  for path, value in expected.items():
    assert isinstance(got[path], np.ndarray)
    np.testing.assert_array_equal(got[path], value, err_msg=path)


@pytest.mark.parametrize(
  ('place', 'step', 'index'),
  [('', 5, 1), ('checkpoints/5', 5, 1), ('checkpoints/2', 2, 0)],
)
def test_weights_of_a_workdir_or_of_one_step(
  workdir, variables, place, step, index
):
  got, got_step = weights.load_weights(workdir / place)
  assert got_step == step
  assert_equal(got, variables[index])


@pytest.mark.parametrize('place', ['checkpoints/3', 'checkpoints', 'none'])
def test_a_place_without_weights_is_refused(workdir, place):
  before = tiny.hash_files(workdir)
  with pytest.raises(UserError, match=f'{workdir / place} is no checkpoint'):
    weights.load_weights(workdir / place)
  assert tiny.hash_files(workdir) == before
  assert not (workdir / 'none').exists()


def test_weights_are_written_once(variables, tmp_path):
  config = tiny.tiny_config()
  weights.save_weights(tmp_path / 'new', variables[0], config, 3)
  got, step = weights.load_weights(tmp_path / 'new')
  assert step == 3
  assert_equal(got, variables[0])
  with pytest.raises(UserError, match='new exists; give a new folder'):
    weights.save_weights(tmp_path / 'new', variables[1], config, 3)
  assert_equal(weights.load_weights(tmp_path / 'new')[0], variables[0])


def first_state(config, classes, workdir):
  """The state that training starts from."""
  model = create_model(config.model, classes)
  tx, _ = create_optimizer(
    config.optimizer, config.train.steps, model.frozen_params()
  )
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  mesh = sharding.create_mesh(jax.devices()[:2])
  with checkpoint.open_manager(workdir, 1) as manager:
    return start.first_or_latest(config, manager, model, tx, iterator, mesh)


def test_training_starts_from_a_step_with_other_classes(
  workdir, variables, tmp_path, caplog
):
  config = tiny.tiny_config(init_from=str(workdir / 'checkpoints' / '2'))
  with caplog.at_level('INFO', logger='absl'):
    state = first_state(config, 5, tmp_path)
  assert 'head: 18 of 20 tensors taken; left: head/classifier' in caplog.text
  assert {len(x.sharding.device_set) for x in jax.tree.leaves(state)} == {2}
  got = traverse_util.flatten_dict(jax.device_get(state.variables))
  expected = traverse_util.flatten_dict(variables[0])
  for path, value in got.items():
    if 'classifier' in path:
      assert value.shape[-1] == 5
    else:
      np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_another_depth_is_refused_before_training(workdir, tmp_path):
  config = tiny.tiny_config(
    init_from=str(workdir), model__backbone__stage_sizes=(1, 1, 2, 1)
  )
  with pytest.raises(UserError, match=r'layer3_1.*not in the checkpoint'):
    first_state(config, 7, tmp_path)


@pytest.mark.parametrize(
  ('keep_best', 'kept'), [(0, {5, 6}), (1, {2, 5, 6}), (2, {2, 4, 5, 6})]
)
def test_the_best_steps_stay_beside_the_latest(tmp_path, keep_best, kept):
  """Scores come after their step is saved, as in training."""
  config, scores = tiny.tiny_config(), {}
  given = {1: 0.5, 2: 0.9, 3: float('nan'), 4: 0.7, 6: 0.1}
  with checkpoint.open_manager(
    tmp_path, 2, keep_best=keep_best, scores=scores
  ) as manager:
    for step in range(1, 7):
      params = {'w': jnp.full(3, step, jnp.float32)}
      state = TrainState(jnp.int32(step), params, {}, {})
      checkpoint.save(manager, state, {'position': step}, config)
      manager.wait_until_finished()
      if step in given:
        scores[step] = given[step]
  assert set(tiny.saved_steps(tmp_path)) == kept
  for step in kept:
    assert tiny.load_step(tmp_path, step)['data']['position'] == step
