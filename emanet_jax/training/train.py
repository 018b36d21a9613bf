"""The training loop, from a configuration to a trained, evaluated workdir."""

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import ml_collections
import optax
import orbax.checkpoint as ocp
from absl import logging

from emanet_jax.config import as_plain_dict
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate, report
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding, startup
from emanet_jax.runtime.preemption import StopNotice
from emanet_jax.runtime.progress import Progress
from emanet_jax.state import checkpoint, train_state
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import losses, optimizer
from emanet_jax.training.metric_writer import (
  MetricWriter,
  evaluated_steps,
  read_metrics,
)
from emanet_jax.training.prefetch import DevicePrefetch
from emanet_jax.training.step_metrics import StepMetrics
from emanet_jax.visualization import plots


def train(config: ml_collections.ConfigDict, workdir: str) -> TrainState:
  """Trains, or goes on training, in a workdir; evaluates at the end.

  A workdir with checkpoints is continued from the latest, bit for bit as if it
  had never stopped. On SIGTERM or Ctrl-C the step is finished and saved.

  Args:
    config: See `emanet_jax.config`.
    workdir: Folder for checkpoints, metrics, curves and evaluation.

  Returns:
    The last state.

  Raises:
    UserError: Anything the user can put right, before the first compilation;
      or a loss, a gradient or, when it would be saved, a state that is no
      longer a number.
  """
  mesh = sharding.create_mesh()
  _check(config, mesh)
  dataset = pipeline.open_dataset(
    config.data, (config.data.train_split, config.data.eval_split)
  )
  model = create_model(config.model, dataset.spec.num_classes)
  schedule, tx = _create_optimizer(config, model)
  iterator = pipeline.train_iterator(
    dataset,
    config.data,
    batch_size=config.train.batch_size,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  manager = checkpoint.open_manager(workdir, config.train.keep_checkpoints)
  state = _first_or_latest(config, manager, model, tx, iterator, mesh)
  start, steps = int(state.step), config.train.steps

  run_split = functools.partial(
    evaluate.run_split,
    model,
    dataset=dataset,
    split=config.data.eval_split,
    batch_size=config.eval.batch_size,
    shape_step=config.eval.shape_step,
    num_pictures=config.eval.num_pictures,
    eval_step=evaluate.create_eval_step(model, dataset.spec.num_classes),
  )
  rng = jax.random.key(config.seed)
  progress = Progress('step', steps, done=start, size=config.train.batch_size)
  collected = StepMetrics(progress)
  step_fn = None
  with contextlib.ExitStack() as stack:
    stack.callback(manager.close)
    stack.callback(iterator.close)
    batches = DevicePrefetch(iterator, mesh, count=steps - start)
    stack.callback(batches.close)
    evaluated = evaluated_steps(workdir, start)
    writer = None
    if jax.process_index() == 0:
      writer = stack.enter_context(MetricWriter(workdir, start))
    notice = stack.enter_context(StopNotice())

    def is_evaluated(step):
      return step == steps or (step and step % config.train.eval_every == 0)

    def evaluate_now(step):
      """Scores a step that is saved, and has not been scored before."""
      with notice.all_saved(), progress.paused():
        manager.wait_until_finished()
        evaluation = run_split(sharding.local(state.variables))
        logging.info('step %d: %s', step, evaluation)
        if writer and step not in evaluated:
          writer.write(step, 'eval', evaluation.scores.summary())
        return evaluation

    # A run stopped before or during an evaluation makes it now.
    if start < steps and is_evaluated(start) and start not in evaluated:
      evaluate_now(start)
    for step in range(start + 1, steps + 1):
      if not batches.ready():  # While the last step runs, nothing is lost.
        jax.block_until_ready(state)
      with collected.waiting_for_data():
        batch = next(batches)
      if step_fn is None:
        with progress.paused():
          step_fn = _compile_step(config, model, tx, mesh, state, batch, rng)
      state, metrics = step_fn(state, batch, rng)
      collected.add(step, metrics)

      stopping = notice.asked(step)
      ending = stopping or is_evaluated(step)
      saving = ending or step % config.train.checkpoint_every == 0
      if saving:
        collected.check(state)
      if step % config.train.log_every == 0 or ending:
        values = collected.report(float(schedule(step - 1)))
        if writer:
          writer.write(step, 'train', values)
      if saving:
        with progress.paused():
          checkpoint.save(manager, state, batches.get_state(), config)
      if stopping:
        manager.wait_until_finished()
        logging.info('stopped and saved at step %d of %d', step, steps)
        return state
      if is_evaluated(step) and step < steps:
        evaluate_now(step)

    final = evaluate_now(steps)
    if writer:
      with notice.all_saved():
        report.write(workdir, final, dataset.spec, steps, as_plain_dict(config))
        curves = Path(workdir) / 'curves.png'
        plots.curves_png(curves, read_metrics(workdir))
        logging.info('curves in %s', curves)
  return state


def _check(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
  """What can be wrong before anything is read."""
  for key, value in config.train.items():
    if value < 1:
      raise UserError(f'train.{key} is {value}; it must be ≥ 1')
  sharding.check_batch_size(
    config.train.batch_size, config.train.accumulation_steps, mesh
  )
  losses.check_loss(**config.loss)
  create_model(config.model, num_classes=1)  # the classes are not known yet
  evaluate.check(config)


def _create_optimizer(
  config: ml_collections.ConfigDict, model: nn.Module
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  options = config.optimizer
  schedule = optimizer.poly_schedule(
    options.learning_rate,
    config.train.steps,
    power=options.poly_power,
    decay_every=options.decay_every,
  )
  return schedule, optimizer.create_optimizer(
    schedule,
    momentum=options.momentum,
    weight_decay=options.weight_decay,
    bias_multiplier=options.bias_multiplier,
    frozen=model.frozen_params(),
  )


def _first_or_latest(
  config: ml_collections.ConfigDict,
  manager: ocp.CheckpointManager,
  model: nn.Module,
  tx: optax.GradientTransformation,
  iterator: pipeline.TrainIterator,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """The workdir's latest checkpoint; else init_from; else random weights."""
  replicated = sharding.replicated(mesh)
  create = functools.partial(train_state.create_state, model, tx)
  rng = jax.random.key(config.seed)
  if manager.latest_step() is not None:
    checkpoint.check_config(manager, config)
    shapes = jax.eval_shape(create, rng)
    abstract = checkpoint.abstract_like(shapes, replicated)
    state = checkpoint.restore(manager, abstract, iterator)
    logging.info('going on from step %d in %s', state.step, manager.directory)
    return state
  if config.init_from:
    weights, _ = checkpoint.load_weights(config.init_from)
  else:
    logging.info('init_from is empty: all weights start at random')
  # Run once: compiling it well would take longer than running it badly.
  quickly = None
  if jax.default_backend() == 'cpu':
    quickly = {'xla_backend_optimization_level': 0}
  state = jax.jit(create, out_shardings=replicated, compiler_options=quickly)(
    rng
  )
  if not config.init_from:
    return state
  state = train_state.take_weights(
    state, weights, config.init_from, config.init_backbone_only
  )
  return jax.device_put(state, replicated)


def _compile_step(config, model, tx, mesh, state, batch, rng) -> Callable:
  """Compiles the step for the one shape it will ever see."""
  step = functools.partial(
    train_state.train_step,
    model=model,
    tx=tx,
    loss_fn=functools.partial(losses.segmentation_loss, **config.loss),
    accumulation_steps=config.train.accumulation_steps,
  )
  start = time.monotonic()
  compiled = (
    jax.jit(step, donate_argnums=0, out_shardings=sharding.replicated(mesh))
    .lower(state, batch, rng)
    .compile()
  )
  startup.give_back_memory()
  count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  logging.info(
    'compiled the training step in %.1f s: %.2f M parameters, batch %s, %s',
    time.monotonic() - start,
    count / 1e6,
    batch['image'].shape,
    f'{mesh.size} {jax.default_backend()} device(s)',
  )
  return compiled
