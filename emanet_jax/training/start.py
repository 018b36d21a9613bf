"""The state that a run begins with, or goes on from."""

import contextlib
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import ml_collections
import optax
import orbax.checkpoint as ocp
from absl import logging

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import compute_dtype
from emanet_jax.runtime import places, sharding
from emanet_jax.state import (
  checkpoint,
  init_from,
  integrity,
  train_state,
  weights,
)
from emanet_jax.state.compatibility import as_today
from emanet_jax.state.train_state import TrainState


def settle_dtype(
  config: ml_collections.ConfigDict, workdir: str
) -> ml_collections.ConfigDict:
  """The configuration with a dtype where `model.dtype` is 'auto'.

  That is the dtype of the checkpoint that the run goes on from, so that its
  numbers go on as they began; else what is good for this machine.
  """
  dtype = config.model.dtype
  folder = places.as_path(workdir) / 'checkpoints'
  if dtype == 'auto' and folder.is_dir():
    manager = checkpoint.open_manager(workdir)
    for step in sorted(manager.all_steps(), reverse=True):
      with contextlib.suppress(integrity.DamagedError):  # told later
        saved = checkpoint.read_config(manager, step)
        dtype = as_today(saved)['model.dtype']
        break
  dtype = compute_dtype(dtype)
  logging.info('model.dtype is %s, on %s', dtype, jax.default_backend())
  config = config.copy_and_resolve_references()
  config.model.dtype = dtype
  return config


def _newest_intact(
  config: ml_collections.ConfigDict,
  manager: ocp.CheckpointManager,
  create_abstract: Callable[[], TrainState],
  iterator: pipeline.TrainIterator,
) -> TrainState:
  """The latest state that is what was saved; damaged ones are set aside."""
  while True:
    damage = None
    try:
      checkpoint.check_config(manager, config)
      state = checkpoint.restore(manager, create_abstract(), iterator)
    except integrity.DamagedError as error:
      damage = error
    # All go on from the same step.
    if not sharding.any_process(damage is not None):
      return state
    step, steps = manager.latest_step(), manager.all_steps()
    if len(steps) < 2:
      raise damage or UserError(f'step {step} is damaged on another process')
    aside = integrity.set_aside(manager, step)
    logging.warning('%s\nIt lies in %s now', damage, aside)


def first_or_latest(
  config: ml_collections.ConfigDict,
  manager: ocp.CheckpointManager,
  model: nn.Module,
  tx: optax.GradientTransformation,
  iterator: pipeline.TrainIterator,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """The workdir's latest checkpoint; else init_from; else random weights."""
  create = functools.partial(train_state.create_state, model, tx)
  rng = jax.random.key(config.seed)

  def create_abstract():
    shapes = jax.eval_shape(create, rng)
    shardings = sharding.state_sharding(mesh, shapes)
    return checkpoint.abstract_like(shapes, shardings)

  if manager.latest_step() is not None:
    state = _newest_intact(config, manager, create_abstract, iterator)
    logging.info('going on from step %d in %s', state.step, manager.directory)
    return state
  if config.init_from:
    given, _ = weights.load_weights(config.init_from)
  else:
    logging.info('init_from is empty: all weights start at random')
  shardings = jax.tree.map(lambda x: x.sharding, create_abstract())
  # Run once: compiling it well would take longer than running it badly.
  quickly = None
  if jax.default_backend() == 'cpu':
    quickly = {'xla_backend_optimization_level': 0}
  state = jax.jit(create, out_shardings=shardings, compiler_options=quickly)(
    rng
  )
  if not config.init_from:
    return state
  state = init_from.take_weights(
    state, given, config.init_from, config.init_backbone_only
  )
  return jax.device_put(state, shardings)
