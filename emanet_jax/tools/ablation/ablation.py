"""A grid from its first run to its tables, whatever is there already."""

import datetime
import statistics
import time
from collections.abc import Mapping

import ml_collections
from absl import logging

from emanet_jax.data.input import pipeline
from emanet_jax.evaluation import settings
from emanet_jax.runtime import atomic, places
from emanet_jax.runtime.ownership import own
from emanet_jax.tools.ablation import costs, figures, runs, tables
from emanet_jax.tools.ablation.grids import Cell, Grid, Run, configure
from emanet_jax.tools.ablation.runs import Score


def ablate(
  config: ml_collections.ConfigDict, grid: Grid, directory: str
) -> dict[tuple[Cell, int], Score]:
  """Makes all runs of a grid that are not made yet, one after the other.

  Each has the workdir DIRECTORY/GRID/RUN. The tables DIRECTORY/GRID.csv and .md
  and the picture .png are written at the start and after each run.

  Args:
    config: Of all runs.
    grid: From `grids`.
    directory: Of all grids.

  Returns:
    By cell and seed: mIoU, or why there is none.

  Raises:
    UserError: A run's workdir was made with another configuration, before
      anything is run; or as `runs.complete`.
  """
  folder = places.as_path(directory) / grid.name
  with own(folder):
    configs = {run.name: configure(config, run) for run in grid.runs}
    for name, given in configs.items():
      runs.check(given, folder / name)
    known, refused = _count(grid, configs)
    results, left = _read(grid, configs, refused, folder)
    _write(config, grid, known, results, folder)
    seconds = []
    for i, run in enumerate(left, len(grid.runs) - len(left) + 1):
      logging.info('run %d of %d: %s', i, len(grid.runs), run.name)
      start = time.monotonic()
      scores = runs.complete(configs[run.name], run, folder / run.name)
      results |= _by_seed(run, scores)
      seconds.append(time.monotonic() - start)
      _write(config, grid, known, results, folder)
      _tell(f'run {i} of {len(grid.runs)}', seconds, len(left))
  return results


def _read(grid, configs, refused, folder) -> tuple[dict, list[Run]]:
  """What is there already or cannot be, and the runs that lack something."""
  results, left = {}, []
  for run in grid.runs:
    reason = refused.get(next(iter(run.evaluations))[0])
    if reason:
      scores = dict.fromkeys(run.evaluations, reason)
    else:
      scores = runs.read(configs[run.name], run, folder / run.name)
    results |= _by_seed(run, scores)
    left += [run] * (len(scores) < len(run.evaluations))
  return results, left


def _by_seed(
  run: Run, scores: Mapping[Cell, Score]
) -> dict[tuple[Cell, int], Score]:
  return {(cell, run.seed): score for cell, score in scores.items()}


def _count(
  grid: Grid, configs: Mapping[str, ml_collections.ConfigDict]
) -> tuple[dict[str, costs.Cost], dict[str, str]]:
  """Where rows are networks: their costs, and why others cannot be."""
  if len(grid.columns) > 1:
    return {}, {}
  found, refused = {}, {}
  for run in grid.runs:
    (row, _), config = next(iter(run.evaluations)), configs[run.name]
    if row in found or row in refused:
      continue
    splits = config.data.train_split, config.data.eval_split
    spec = pipeline.open_dataset(config.data, splits).spec
    try:
      found[row] = costs.count(config, spec.num_classes)
    except (TypeError, ValueError) as error:  # UserError; shapes do not fit
      refused[row] = str(error)
      logging.warning('%s cannot be trained: %s', run.name, error)
  return found, refused


def _write(config, grid, known, results, folder) -> None:
  cells = tables.summarize(grid, results)
  conditions = (
    f'{config.data.name} {config.data.eval_split}, '
    f'{settings.get_protocol(config)}, {config.train.steps} steps of '
    f'{config.train.batch_size}'
  )
  page = tables.to_markdown(grid, cells, known, conditions)
  atomic.write(f'{folder}.md', page)
  atomic.write(f'{folder}.csv', tables.to_csv(grid, cells, known))
  legend = tables.legend(grid, conditions)
  figures.draw(f'{folder}.png', grid, cells, known, legend)
  logging.info('%s\ntables and picture: %s.md, .csv, .png', page, folder)


def _tell(what: str, seconds: list[float], total: int) -> None:
  """Logs what a run took, and what is left if the rest are as those so far."""
  left = statistics.fmean(seconds) * (total - len(seconds))
  took, rest = (
    datetime.timedelta(seconds=round(s)) for s in (seconds[-1], left)
  )
  logging.info('%s took %s; %s left by the runs so far', what, took, rest)
