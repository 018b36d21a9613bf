"""Scores of a run's checkpoints as they appear, beside the training."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate, settings
from emanet_jax.runtime import places
from emanet_jax.runtime.ownership import own
from emanet_jax.state import checkpoint
from emanet_jax.state.inference_weights import open_for_inference
from emanet_jax.state.integrity import DamagedError
from emanet_jax.training.metric_writer import evaluated_scores, open_writer

_SECONDS = 10.0  # between looks for new steps


def scores_folder(workdir: str | os.PathLike[str]) -> places.AnyPath:
  """Where a follower of this run keeps its scores and its last report."""
  return places.as_path(workdir) / 'eval' / 'followed'


def follow(config: ml_collections.ConfigDict, workdir: str) -> dict[int, float]:
  """Scores each step of a workdir, in order, until the last of the run is.

  Steps that are deleted before their turn are left out: where training is
  faster, `train.keep_checkpoints` says how far this may fall behind. Scores are
  kept in `workdir/eval/followed/metrics.jsonl`, and in TensorBoard's files
  there, so that a restart goes on after the last; beside them lies the report
  of the latest step.

  Args:
    config: See `emanet_jax.config`.
    workdir: Folder of the run; it may still be empty.

  Returns:
    Step to mIoU, nan of a damaged step.

  Raises:
    UserError: Checkpoints of another model, or data that are not there; or
      somebody else follows this run.
  """
  settings.check(config)
  settings.check_devices(config)
  folder = scores_folder(workdir)
  places.check_folder(folder)
  writes = jax.process_index() == 0
  with contextlib.ExitStack() as stack:
    if writes:
      stack.enter_context(own(folder))
    scores = evaluated_scores(folder, sys.maxsize)
    writer = stack.enter_context(open_writer(folder, None, writes=writes))
    score, finished = None, False
    if scores:
      latest = open_for_inference(config, workdir)
      finished = max(scores) >= latest.last_step
    while not finished:
      step = _wait_for_step(workdir, done=scores)
      try:
        trained = open_for_inference(config, workdir, step)
        score = score or evaluate.create_scorer(trained.config)
        evaluation = score(trained, folder)
      except UserError as error:
        checkpoints = places.as_path(workdir) / 'checkpoints'
        if not (checkpoints / str(step)).exists():
          logging.info('step %d was deleted before its turn', step)
          continue
        if not isinstance(error, DamagedError):
          raise
        logging.warning('%s', error)
        scores[step] = math.nan
        continue
      logging.info('step %d: %s', step, evaluation)
      scores[step] = evaluation.miou
      values = {**evaluation.scores.summary, 'mIoU': evaluation.miou}
      writer.write(step, 'eval', values)
      finished = step >= trained.last_step
  return scores


def _wait_for_step(workdir: str, done: Mapping[int, float]) -> int:
  """The first step that is complete and not done; the same on each process."""
  checkpoints = places.as_path(workdir) / 'checkpoints'
  told = False
  while True:
    step = -1
    if jax.process_index() == 0 and checkpoints.is_dir():
      with checkpoint.open_manager(workdir) as manager:
        step = min(set(manager.all_steps()) - set(done), default=-1)
    if jax.process_count() > 1:
      step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
    if step >= 0:
      return step
    if not told:
      logging.info('waiting for a new step in %s', checkpoints)
      told = True
    time.sleep(_SECONDS)
