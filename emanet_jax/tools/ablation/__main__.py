"""Grids of runs beside one another: trained, scored, and put into a table.

  python -m emanet_jax.tools.ablation WHAT --config C --workdir DIR

  stages    rounds of EM, 1 to 8 in training × 1 to 8 in evaluation
  bases     how μ⁰ is kept × how bases are normalised
  heads     all heads, or those of --heads, with parameters and multiply-adds

Each run has a workdir of its own, as DIR/stages/T3_seed0, trained as by
emanet_jax.main. DIR/stages.md, .csv and .png show what there is after each run.
The same command goes on where it was stopped: what is finished is only read.
Exit codes are those of emanet_jax.main.

  --config.KEY=VALUE

changes any setting of all runs: --config.data.data_dir=R,
--config.optimizer.learning_rate=0.05.
"""

import contextlib

from emanet_jax.runtime.early_exit import ending_at_once

_BEGINNING = contextlib.ExitStack()
if __name__ == '__main__':  # the imports below take seconds
  _BEGINNING.enter_context(ending_at_once('ended; what is saved stays'))

import os
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from emanet_jax import config_flag
from emanet_jax.errors import TryAgainError, UserError
from emanet_jax.runtime import startup
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.runtime.preemption import STOPPED
from emanet_jax.tools.ablation import grids
from emanet_jax.tools.ablation.ablation import ablate

CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the tables, and of the workdirs of all runs.'
)
_SEEDS = flags.DEFINE_list(
  'seeds', ['0'], 'Seeds, as 0,1,2: each cell has a run with each.'
)
_STEPS = flags.DEFINE_integer(
  'steps',
  None,
  "Of each run, instead of the run book's config.train.steps.",
  lower_bound=1,
)
_HEADS = flags.DEFINE_list(
  'heads', [], 'heads: which, as psp,deeplabv3,ema. Default: all there are.'
)


def main(argv: Sequence[str]) -> None:
  """Makes a grid; what the user can put right ends in one line."""
  if len(argv) != 2 or argv[1] not in grids.GRIDS:
    raise app.UsageError(f'give one of {", ".join(grids.GRIDS)}')
  log_own_progress()
  startup.keep_freed_memory()
  try:
    startup.cache_compilations(startup.PROGRAMS)
    if _STEPS.value:
      CONFIG.value.train.steps = _STEPS.value
    grid = grids.create(argv[1], CONFIG.value, _SEEDS.value, _HEADS.value)
    ablate(CONFIG.value, grid, os.path.expanduser(_WORKDIR.value))
  except (UserError, OSError) as error:
    logging.flush()
    print(f'error: {error}', file=sys.stderr)
    sys.exit(STOPPED if isinstance(error, TryAgainError) else 1)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=config_flag.parse_flags)
