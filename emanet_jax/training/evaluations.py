"""The evaluations of a run on its way: when they are due, and their scores."""

import functools
import math
import time

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate, settings
from emanet_jax.evaluation.metrics import create_metrics
from emanet_jax.evaluation.plan import plan_split
from emanet_jax.evaluation.report import Conditions, Evaluation
from emanet_jax.inference import batching
from emanet_jax.runtime import device_memory, places, sharding
from emanet_jax.runtime.preemption import StopNotice
from emanet_jax.state import background_saves
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import follow
from emanet_jax.training.metric_writer import MetricWriter, evaluated_scores


class Evaluations:
  """Scores steps that are saved, each once, whatever stops the run between.

  Attributes:
    scores: mIoU of each step that was evaluated, by which the best checkpoint
      is kept.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    model: nn.Module,
    dataset: pipeline.Dataset,
    mesh: jax.sharding.Mesh,
    scores: dict[int, float],
  ):
    """Evaluates nothing yet.

    Args:
      config: Of the run.
      model: Its network.
      dataset: Prepared.
      mesh: Of the devices that hold the state.
      scores: Of earlier evaluations; added to.
    """
    self.scores, self._mesh = scores, mesh
    self._split, self._dtype = config.data.eval_split, model.dtype
    self._protocol = settings.get_training_protocol(config)
    self._steps = config.train.steps
    self._every = config.train.eval_every
    shapes = {
      'batch_size': settings.get_batch_size(config),
      'shape_step': config.eval.shape_step,
      'space': config.mesh.space,
    }
    self._eval_step = evaluate.create_eval_step(
      model, dataset.spec.num_classes, self._protocol
    )
    given = model, dataset, self._split
    self._plan = functools.partial(plan_split, *given, **shapes)
    self._run_split = functools.partial(
      evaluate.run_split,
      model,
      dataset=dataset,
      split=self._split,
      num_pictures=config.eval.num_pictures,
      metrics=create_metrics(config.eval.metrics),
      eval_step=self._eval_step,
      **shapes,
    )

  def conditions(self, step: int) -> Conditions:
    """How a step's scores are made."""
    return Conditions(self._split, step, self._protocol, self._dtype)

  def due(self, step: int) -> bool:
    """Whether a step is to be evaluated: every so many, and the last."""
    if not self._every:
      return False
    return step == self._steps or (step > 0 and step % self._every == 0)

  def check_memory(self, state: TrainState) -> None:
    """Compiles for the largest images, if devices say what memory they have.

    The evaluations use that program. Where it and the state do not fit, a run
    that begins is refused; one that goes on is warned, since whatever restarts
    it would restart it for ever.

    Args:
      state: As it lies on the devices.

    Raises:
      UserError: The memory does not suffice, and nothing is trained yet.
    """
    if not self._every:
      return
    plan, capacity = self._plan(), device_memory.capacity()
    logging.info('%s is evaluated in %s', self._split, plan)
    if capacity is None:
      return
    lack = None
    variables = sharding.local(state.variables, self._mesh)  # all take part
    held = device_memory.held(state)
    try:
      if plan.batches:
        with jax.set_mesh(plan.mesh):
          self._compile_largest(variables, held, plan.largest(), capacity)
    except batching.LackOfMemoryError as error:
      lack = error
    if sharding.any_process(lack is not None):
      lack = lack or UserError('another process has not enough memory')
      if int(state.step) == 0:
        raise lack
      logging.error('%s', lack)

  def _compile_largest(self, variables, held, batch, capacity) -> None:
    start = time.monotonic()
    places, height, width = batch['label'].shape
    with batching.explain_lack_of_memory((height, width)):
      program = self._eval_step.lower(variables, batch).compile()
    needed = held + device_memory.needed(program)
    told = f'{needed / 1e9:.1f} GB of {capacity / 1e9:.1f}'
    logging.info(
      'compiled the evaluation of its largest images in %.1f s; with the '
      'training state it needs %s',
      *(time.monotonic() - start, told),
    )
    if needed > capacity:
      raise batching.LackOfMemoryError(
        f'the evaluation of {places} image(s) padded to {width}×{height} would '
        f'need, with the training state, {told}; {batching.SMALLER}'
      )

  def run(
    self,
    state: TrainState,
    manager: ocp.CheckpointManager,
    writer: MetricWriter,
    notice: StopNotice,
  ) -> Evaluation | None:
    """Evaluates a state that is saved, or being saved.

    Where a device's memory does not suffice, that is told, and the step has no
    score: training goes on, and a restart does not run into it again.

    Args:
      state: What to score.
      manager: Has its checkpoint, which is waited for.
      writer: Is given the scores, unless the step was evaluated before.
      notice: A signal meanwhile ends the process: nothing would be lost.
    """
    step = int(state.step)
    with notice.all_saved():
      background_saves.finish(manager)
      try:
        evaluation = self._run_split(
          sharding.local(state.variables, self._mesh)
        )
      except batching.LackOfMemoryError as error:
        logging.error('step %d is not scored: %s', step, error)
        writer.write(step, 'eval', {'mIoU': math.nan})
        self.scores[step] = math.nan
        return None
      logging.info('step %d, %s: %s', step, self._protocol, evaluation)
      if step not in self.scores:
        # mIoU in any case: a resumed run knows the best step by it.
        values = {**evaluation.scores.summary, 'mIoU': evaluation.miou}
        writer.write(step, 'eval', values)
      self.scores[step] = evaluation.miou
    return evaluation

  def hear_follower(self, manager: ocp.CheckpointManager) -> None:
    """Takes over the scores of who follows a run that evaluates nothing itself.

    Args:
      manager: Of the run's checkpoints, those which may stay for their scores.
    """
    if self._every:
      return
    steps = manager.all_steps()
    scores = np.full(len(steps), np.nan)
    if jax.process_index() == 0:
      workdir = places.as_path(manager.directory).parent
      found = evaluated_scores(follow.scores_folder(workdir), self._steps)
      scores[:] = [found.get(step, math.nan) for step in steps]
    if jax.process_count() > 1:  # all keep the same
      scores = multihost_utils.broadcast_one_to_all(scores)
    self.scores.update(zip(steps, np.asarray(scores).tolist(), strict=True))

  def tell_best(self) -> None:
    """Logs which step scored best so far."""
    scored = {s: v for s, v in self.scores.items() if v == v}
    if scored and jax.process_index() == 0:
      best = max(scored, key=lambda step: (scored[step], step))
      logging.info(
        'best so far: mIoU %.2f, step %d (%s)',
        *(100 * scored[best], best),
        self._protocol if self._every else 'as followed',
      )
