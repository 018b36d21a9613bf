"""Evaluations on the way never end a training run for lack of memory."""

import math
from unittest import mock

import jax.numpy as jnp
import orbax.checkpoint as ocp

from emanet_jax.inference.batching import LackOfMemoryError
from emanet_jax.runtime.preemption import StopNotice
from emanet_jax.state.train_state import TrainState
from emanet_jax.training.evaluations import Evaluations
from emanet_jax.training.metric_writer import MetricWriter, evaluated_scores


def test_a_lack_of_memory_is_told_and_not_run_into_again(tmp_path, caplog):
  evaluations = Evaluations.__new__(Evaluations)
  evaluations.scores = {2: 0.5}
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
  assert 'best so far: mIoU 50.00, step 2' in caplog.text
