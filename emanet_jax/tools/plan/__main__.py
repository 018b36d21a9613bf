"""What a run would need and take, on machines that are not here.

  python -m emanet_jax.tools.plan --config configs/voc.py --target v5e:4x8

compiles the run's training step, and the evaluation of its largest images, for
the devices of a target: TPU slices v5e:…, v6e:…, v5p:… by their sides, as Cloud
TPU names them; h100:8 for a host's, h100:4x8 for those of four hosts; cpu:4 for
so many devices of this machine's processor, which says memory and exchanges,
but no time. It prints what each device needs and how long the run would take.
Nothing is run, so neither accelerator nor data nor weights are needed.

  pip install ".[plan]"

has the compilers for TPUs and GPUs; in an environment of its own, since JAX
takes them for a sign that there is an accelerator.

TPU programs are compiled at the compiler's lowest effort, since at the usual
one it tries kernels out for hours: the real ones may be faster, and need more
or less memory. The time is the compiler's estimate for TPUs, and for GPUs the
sum of what each operation takes at the chip's limits: a real step is slower.
"""

import sys

from absl import app, flags

from emanet_jax import config_flag
from emanet_jax.errors import UserError
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.tools.plan import targets
from emanet_jax.tools.plan.plan import plan

_CONFIG = config_flag.define()
_TARGET = flags.DEFINE_string(
  'target', None, 'Devices to compile for, as v5e:4x8, h100:8 or cpu:4.'
)
_BATCH = flags.DEFINE_integer(
  'batch', None, 'Images of a step, instead of config.train.batch_size.'
)
_LARGEST_BATCH = flags.DEFINE_bool(
  'largest_batch',
  True,
  'Look for the largest batch that fits, with one to four more compilations.',
)
_EVALUATION = flags.DEFINE_bool(
  'evaluation', True, 'Compile the evaluation of the largest images as well.'
)
_EVAL_SIZE = flags.DEFINE_list(
  'eval_size',
  [],
  'Height and width of the largest image, as 500,375. Default: those of the '
  'prepared data set where it is there, else of a crop.',
)


def _eval_size() -> tuple[int, int] | None:
  """Of --eval_size; raises UserError for other than two whole numbers."""
  given = _EVAL_SIZE.value
  if not given:
    return None
  if len(given) != 2 or not all(n.strip().isdecimal() for n in given):
    raise UserError(
      f'--eval_size={",".join(given)}: give height and width in pixels, as '
      '--eval_size=500,375'
    )
  return int(given[0]), int(given[1])


def main(argv: list[str]) -> None:
  """Plans a run for a target."""
  log_own_progress()
  try:
    if len(argv) > 1:
      raise UserError(f'{argv[1]} is not taken; devices are given by --target')
    config, target = _CONFIG.value, targets.parse(_TARGET.value)
    targets.prepare(target)
    if _BATCH.value is not None:
      config.train.batch_size = _BATCH.value
    for paragraph in plan(
      config,
      target,
      eval_size=_eval_size(),
      evaluation=_EVALUATION.value,
      largest_batch=_LARGEST_BATCH.value,
    ):
      print(paragraph, flush=True)
  except (UserError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'target'])
  app.run(main, flags_parser=config_flag.parse_flags)
