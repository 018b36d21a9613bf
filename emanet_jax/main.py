"""python -m emanet_jax.main --config configs/voc.py --workdir W [--mode M]."""

import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.prediction import predict
from emanet_jax.runtime import startup
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.training import train

CONFIG = config_flags.DEFINE_config_file(
  'config', help_string='Run book; any leaf can be set: --config.train.steps=9.'
)
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


def main(argv: Sequence[str]) -> None:
  """Runs the mode; what the user can put right ends in one line, exit 1."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {" ".join(argv[1:])}')
  log_own_progress()
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


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the flags; a wrong path or key of the config is one line, too."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError) as error:  # str() would quote the message
    sys.exit(f'error: in the configuration: {error.args[0]}')
  except (OSError, TypeError, ValueError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_flags)
