"""One run of a grid: trained, scored, or both already."""

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections

from emanet_jax.evaluation import evaluate, settings
from emanet_jax.inference.batching import LackOfMemoryError
from emanet_jax.runtime import places, startup
from emanet_jax.runtime.places import AnyPath
from emanet_jax.runtime.preemption import STOPPED
from emanet_jax.state import checkpoint
from emanet_jax.state.inference_weights import open_for_inference
from emanet_jax.state.integrity import DamagedError
from emanet_jax.tools.ablation.grids import Cell, Run, changed
from emanet_jax.training import train
from emanet_jax.training.metric_writer import evaluated_scores
from emanet_jax.training.step_metrics import DivergedError

Score = float | str  # mIoU in [0, 1], or why there is none


def check(config: ml_collections.ConfigDict, workdir: AnyPath) -> None:
  """Refuses a workdir that was made with another configuration.

  Raises:
    UserError: Naming every differing key, with both values.
  """
  if not (workdir / 'checkpoints').is_dir():
    return
  with (
    checkpoint.open_manager(workdir) as manager,
    contextlib.suppress(DamagedError),  # which training sets aside
  ):
    if manager.latest_step() is not None:
      checkpoint.check_config(manager, config)


def read(
  config: ml_collections.ConfigDict, run: Run, workdir: AnyPath
) -> dict[Cell, Score]:
  """The scores that a run has already; none before its training is done."""
  if not _trained(config, workdir):
    return {}
  saved = _changed_at(workdir / 'checkpoints' / str(config.train.steps))
  found = {
    cell: _read_score(config, _folder(config, changes, workdir), saved)
    for cell, changes in run.evaluations.items()
  }
  return {cell: score for cell, score in found.items() if score is not None}


def complete(
  config: ml_collections.ConfigDict, run: Run, workdir: AnyPath
) -> dict[Cell, Score]:
  """Trains a run as `main` does, or goes on, and makes the scores it lacks.

  What becomes no number or lacks memory has the reason for a score. A signal
  while it trains ends the process, when the step is saved, with STOPPED.

  Args:
    config: Of the run.
    run: With its evaluations.
    workdir: Of the run alone.

  Raises:
    UserError: What the user can put right, as `train.train` and
      `evaluate.create_scorer` have it.
  """
  if not _trained(config, workdir):
    _, reason = _tried(train.train, config, str(workdir))
    if reason:
      return dict.fromkeys(run.evaluations, reason)
    if not _trained(config, workdir):
      sys.exit(STOPPED)
  found = read(config, run, workdir)
  for cell, changes in run.evaluations.items():
    if cell not in found:
      score, reason = _tried(_evaluate, config, changes, workdir)
      found[cell] = reason or score
  return found


def _tried(function: Callable, *args: Any) -> tuple[Any, str]:
  """What a function returns, and ''; or None, and why there will be nothing."""
  try:
    return function(*args), ''
  except (DivergedError, LackOfMemoryError) as error:
    return None, str(error)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return None, 'the device has not enough memory'
  finally:
    startup.give_back_memory()


def _trained(config: ml_collections.ConfigDict, workdir: AnyPath) -> bool:
  """Whether the last step is saved and, if it is to be, evaluated."""
  steps = config.train.steps
  if not (workdir / 'checkpoints' / str(steps)).exists():
    return False
  if config.train.eval_every:  # which is done once the step is complete
    return steps in evaluated_scores(workdir, steps)
  with checkpoint.open_manager(workdir) as manager:
    return steps in manager.all_steps()


def _folder(
  config: ml_collections.ConfigDict,
  changes: Mapping[str, Any],
  workdir: AnyPath,
) -> AnyPath:
  """Of an evaluation's report; without changes, that of training's own."""
  named = [settings.get_protocol(config).name]
  named += [f'{key.split(".")[-1]}_{value}' for key, value in changes.items()]
  return workdir / 'eval' / '_'.join(filter(None, named))


def _read_score(
  config: ml_collections.ConfigDict, folder: AnyPath, saved: float
) -> float | None:
  """MIoU of a report; None if there is none of this step, split and views.

  Args:
    config: Of the run.
    folder: Of the report.
    saved: When the step was, in seconds: an older report is of other weights.
  """
  file = folder / 'scores.json'
  if not file.exists() or _changed_at(file) < saved:
    return None
  report = json.loads(file.read_text())
  expected = {
    'split': config.data.eval_split,
    'step': config.train.steps,
    **dataclasses.asdict(settings.get_protocol(config)),
  }
  expected = json.loads(json.dumps(expected))  # lists instead of tuples
  if not report.items() >= expected.items():
    return None
  miou = report.get('mIoU')
  return math.nan if miou is None else miou


def _changed_at(path: AnyPath) -> float:
  """When, in seconds; in buckets folders have no time, which is 0."""
  stat = path.stat()
  return stat.st_mtime if hasattr(stat, 'st_mtime') else stat.mtime or 0.0


def _evaluate(
  config: ml_collections.ConfigDict,
  changes: Mapping[str, Any],
  workdir: AnyPath,
) -> float:
  """Scores the last step, and writes the report; of many, without pictures."""
  if changes:
    config = changed(config, {**changes, 'eval.num_pictures': 0})
  trained = open_for_inference(config, str(workdir), config.train.steps)
  folder = _folder(config, changes, workdir)
  places.check_folder(folder)
  with trained.manager:
    return evaluate.create_scorer(trained.config)(trained, folder).miou
