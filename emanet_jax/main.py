"""Trains, evaluates or predicts: python -m emanet_jax.main --config C."""

import contextlib
import gc

from emanet_jax.runtime.early_exit import ending_at_once

_BEGINNING = contextlib.ExitStack()
if __name__ == '__main__':  # the imports below take seconds
  gc.disable()  # to look for garbage meanwhile takes half as long again
  _BEGINNING.enter_context(ending_at_once('ended; what is saved stays'))

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from emanet_jax import config_flag
from emanet_jax.errors import TryAgainError, UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.prediction import predict
from emanet_jax.runtime import distributed, startup
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.runtime.preemption import STOPPED
from emanet_jax.training import follow, train

CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder of the run: checkpoints, metrics, pictures; gs://BUCKET/FOLDER is in '
  "a bucket. Default: runs/NAME, of the run book's name.",
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'evaluate', 'predict'],
  'What to do in the workdir.',
)
CHECKPOINT = flags.DEFINE_integer(
  'checkpoint',
  None,
  'Step of the workdir to evaluate, predict with or export; default: the '
  'latest.',
)
_FOLLOW = flags.DEFINE_bool(
  'follow',
  False,
  "With --mode=evaluate: score each step as it is saved, until the run's last, "
  'while another process trains.',
)
_DISTRIBUTED = flags.DEFINE_enum(
  'distributed',
  'auto',
  distributed.MODES,
  'Whether to join the other processes of a cluster or TPU slice: where there '
  'is one, always, or never.',
)
_HEARTBEAT = flags.DEFINE_integer(
  'heartbeat_seconds',
  100,
  'Of several processes: how long one may be silent before the others take it '
  'for dead, and end.',
  lower_bound=2,
)
_CACHE = flags.DEFINE_string(
  'compilation_cache',
  startup.PROGRAMS,
  'Folder that keeps programs whose compilation took over a second, for the '
  "next start; '' for none.",
)
_KEEP_FREED_MEMORY = flags.DEFINE_bool(
  'keep_freed_memory',
  True,
  'On CPUs, with glibc: keep the memory of a step for the next one, which then '
  'takes less time (mallopt, and a thread that bounds it: see '
  'runtime/startup.py).',
)


def main(argv: Sequence[str]) -> None:
  """Runs the mode; what the user can put right ends in one line.

  The exit code is 1 then, 75 where starting again may be enough.
  """
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  log_own_progress()
  if _KEEP_FREED_MEMORY.value:
    startup.keep_freed_memory()
  try:
    startup.cache_compilations(_CACHE.value)
    distributed.join(_DISTRIBUTED.value, _HEARTBEAT.value)
    _run(CONFIG.value, _workdir())
  except (UserError, OSError) as error:
    logging.flush()
    print(f'error: {error}', file=sys.stderr)
    sys.exit(STOPPED if isinstance(error, TryAgainError) else 1)


def _workdir() -> str:
  if _WORKDIR.value:
    return os.path.expanduser(_WORKDIR.value)
  book = config_flags.get_config_filename(flags.FLAGS['config'])
  workdir = os.path.join('runs', Path(book).stem)
  logging.info('--workdir is not given: it is %s', workdir)
  return workdir


def _run(config: ml_collections.ConfigDict, workdir: str) -> None:
  if _FOLLOW.value and (_MODE.value != 'evaluate' or CHECKPOINT.value):
    raise UserError('--follow is for --mode=evaluate, without --checkpoint')
  if _FOLLOW.value:
    follow.follow(config, workdir)
  elif _MODE.value == 'evaluate':
    evaluate.evaluate(config, workdir, CHECKPOINT.value)
  elif _MODE.value == 'predict':
    predict.predict(config, workdir, CHECKPOINT.value)
  elif CHECKPOINT.value is None:
    state = train.train(config, workdir)
    if int(state.step) < config.train.steps:
      sys.exit(STOPPED)
  else:
    raise UserError(
      '--checkpoint is for evaluation, prediction and export; training goes on '
      'from the latest step. To start from another one, give a new --workdir '
      f'and --config.init_from={workdir}/checkpoints/{CHECKPOINT.value}'
    )


if __name__ == '__main__':
  gc.freeze()  # what was imported stays, and need not be looked through
  gc.enable()
  flags.mark_flag_as_required('config')
  app.run(main, flags_parser=config_flag.parse_flags)
