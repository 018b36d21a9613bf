"""The training step as a program, for devices that are here or elsewhere."""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import logging
from jax.sharding import Mesh

from emanet_jax.runtime import sharding, startup
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import step as training_step


def compile_step(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  tx: optax.GradientTransformation,
  loss_fn: training_step.LossFn,
  mesh: Mesh,
  state: TrainState,
  rng: jax.Array | jax.ShapeDtypeStruct,
) -> jax.stages.Compiled:
  """Compiles the step for the one shape it will ever see.

  Args:
    config: Of the run.
    model: Its network.
    tx: Its optimizer.
    loss_fn: Its loss.
    mesh: Of the devices, or of a description of some (`jax.experimental`'s
      `topologies`).
    state: Arrays on the mesh; or shapes, with their shardings.
    rng: Key of the run, likewise.
  """
  step = functools.partial(
    training_step.train_step,
    model=model,
    tx=tx,
    loss_fn=loss_fn,
    accumulation_steps=config.train.accumulation_steps,
  )
  shape = (config.train.batch_size, *[config.data.crop_size] * 2)
  split = sharding.batch_sharding(mesh)
  batch = {
    'image': jax.ShapeDtypeStruct((*shape, 3), jnp.uint8, sharding=split),
    'label': jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split),
  }
  start = time.monotonic()
  results = sharding.state_sharding(mesh, state), sharding.replicated(mesh)
  jitted = jax.jit(step, donate_argnums=0, out_shardings=results)
  with jax.set_mesh(mesh):
    compiled = jitted.lower(state, batch, rng).compile()
  startup.give_back_memory()
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  logging.info(
    'compiled the training step in %.1f s: %.2f M parameters, batch %s, %s',
    time.monotonic() - start,
    count / 1e6,
    batch['image'].shape,
    sharding.describe(mesh, state),
  )
  return compiled
