"""python -m emanet_jax.main --config configs/voc.py --workdir W [--mode M]."""

import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging

from emanet_jax import config_flag
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.prediction import predict
from emanet_jax.runtime import startup
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.training import train

CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run: checkpoints, metrics, pictures.'
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'evaluate', 'predict'],
  'What to do in the workdir.',
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Join the other processes of a cluster or TPU pod.'
)
_CACHE = flags.DEFINE_string(
  'compilation_cache',
  '~/.cache/emanet_jax',
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
  """Runs the mode; what the user can put right ends in one line, exit 1."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  log_own_progress()
  if _KEEP_FREED_MEMORY.value:
    startup.keep_freed_memory()
  startup.cache_compilations(_CACHE.value)
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  run = {
    'train': train.train,
    'evaluate': evaluate.evaluate,
    'predict': predict.predict,
  }[_MODE.value]
  try:
    run(CONFIG.value, _WORKDIR.value)
  except (UserError, OSError) as error:
    logging.flush()
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=config_flag.parse_flags)
