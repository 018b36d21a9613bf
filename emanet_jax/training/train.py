"""The training loop, from a configuration to a trained, evaluated workdir."""

import contextlib

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging

from emanet_jax.config import as_plain_dict
from emanet_jax.data.input import pipeline
from emanet_jax.evaluation import report
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import places, sharding
from emanet_jax.runtime.ownership import own
from emanet_jax.runtime.preemption import StopNotice
from emanet_jax.runtime.progress import Progress
from emanet_jax.state import background_saves, checkpoint
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import checks
from emanet_jax.training import step as training_step
from emanet_jax.training.compile import compile_step
from emanet_jax.training.evaluations import Evaluations
from emanet_jax.training.losses import class_shares, create_loss
from emanet_jax.training.metric_writer import (
  evaluated_scores,
  open_writer,
  read_metrics,
)
from emanet_jax.training.optimizers import create_optimizer
from emanet_jax.training.prefetch import DevicePrefetch
from emanet_jax.training.start import first_or_latest, settle_dtype
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
  mesh = sharding.create_mesh(fsdp=config.mesh.fsdp, space=config.mesh.space)
  checks.check(config, mesh)
  config = settle_dtype(config, workdir)
  # What a run is made of, each from its part of the configuration.
  dataset = checks.open_dataset(config)
  model = create_model(config.model, dataset.spec.num_classes)
  loss_fn = _create_loss(config, dataset)
  tx, schedule = create_optimizer(
    config.optimizer, config.train.steps, model.frozen_params()
  )
  iterator = _create_iterator(config, dataset)
  evaluations = Evaluations(config, model, dataset, mesh, scores={})
  writes = jax.process_index() == 0

  with contextlib.ExitStack() as stack:
    stack.callback(iterator.close)
    if writes:
      stack.enter_context(own(workdir))
    manager = _open_manager(config, workdir, evaluations)
    stack.enter_context(background_saves.closing(manager))
    state = first_or_latest(config, manager, model, tx, iterator, mesh)
    start, steps = int(state.step), config.train.steps
    rng = jax.random.key(config.seed)
    evaluations.scores.update(evaluated_scores(workdir, start))
    batches = DevicePrefetch(iterator, mesh, count=steps - start)
    stack.callback(batches.close)
    writer = stack.enter_context(open_writer(workdir, start, writes=writes))
    notice = stack.enter_context(StopNotice())
    scoring = manager, writer, notice

    if start < steps:
      # A run stopped before or during an evaluation makes it now.
      if evaluations.due(start) and start not in evaluations.scores:
        evaluations.run(state, *scoring)
      with notice.ending_at_once(f'all is saved, up to step {start}'):
        step_fn = compile_step(config, model, tx, loss_fn, mesh, state, rng)
        evaluations.check_memory(state)
    progress = Progress('step', steps, done=start, size=config.train.batch_size)
    metrics = StepMetrics(progress)
    # Steps count from 1: a checkpoint's number is that of the steps behind it.
    for step in range(start + 1, steps + 1):
      if not batches.ready():  # While the last step runs, nothing is lost.
        jax.block_until_ready(state)
      with metrics.waiting_for_data():
        batch = next(batches)
      # Returns at once; the old state's memory is given to the new one.
      state, values = step_fn(state, batch, rng)
      metrics.add(step, values)
      background_saves.check(manager)

      stopping = notice.asked(step)
      ending = stopping or step == steps or evaluations.due(step)
      saving = ending or step % config.train.checkpoint_every == 0
      # What is no number must not become a checkpoint, let alone the latest.
      if saving:
        metrics.check(state)
      if ending or step % config.train.log_every == 0:
        writer.write(step, 'train', metrics.report(float(schedule(step - 1))))
      if saving:
        with progress.paused():
          evaluations.hear_follower(manager)
          checkpoint.save(manager, state, batches.get_state(), config)
      if stopping:
        background_saves.finish(manager)
        logging.info('stopped and saved at step %d of %d', step, steps)
        return state
      # After the save: a kill during an evaluation loses nothing of the run.
      if evaluations.due(step) and step < steps:
        with progress.paused():
          evaluations.run(state, *scoring)

    final = evaluations.due(steps) and evaluations.run(state, *scoring)
    evaluations.tell_best()
    if writes and final:
      with notice.all_saved():
        _write_report(config, workdir, final, dataset, evaluations)
  return state


def _create_loss(
  config: ml_collections.ConfigDict, dataset: pipeline.Dataset
) -> training_step.LossFn:
  shares = class_shares(dataset.report(), config.data.train_split)
  return create_loss(config.loss, dataset.spec.num_classes, shares)


def _create_iterator(
  config: ml_collections.ConfigDict, dataset: pipeline.Dataset
) -> pipeline.TrainIterator:
  return pipeline.train_iterator(
    dataset,
    config.data,
    batch_size=config.train.batch_size,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _open_manager(config, workdir, evaluations) -> ocp.CheckpointManager:
  return checkpoint.open_manager(
    workdir,
    config.train.keep_checkpoints,
    keep_best=config.train.keep_best,
    scores=evaluations.scores,
  )


def _write_report(config, workdir, evaluation, dataset, evaluations) -> None:
  """The last evaluation's report, and the curves of the whole run."""
  conditions = evaluations.conditions(config.train.steps)
  report.write(
    places.as_path(workdir) / 'eval' / conditions.protocol.name,
    evaluation,
    dataset.spec,
    conditions,
    as_plain_dict(config),
  )
  curves = places.as_path(workdir) / 'curves.png'
  plots.curves_png(curves, read_metrics(workdir))
  logging.info('curves in %s', curves)
