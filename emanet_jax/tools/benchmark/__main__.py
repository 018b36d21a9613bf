"""How fast the parts are, on this machine.

  python -m emanet_jax.tools.benchmark input

measures the training input against the mere decoding of the same records and,
where PyTorch is installed, the authors' input; on photos made up for it, or on
a prepared data set: --data_dir=data --name=camvid --split=train.

  python -m emanet_jax.tools.benchmark evaluate

measures evaluation in batches of one shape against one image at a time.
"""

import json
import os
import pathlib
import sys
from typing import Any

from absl import app, flags

from emanet_jax.tools.benchmark import evaluation, photos
from emanet_jax.tools.benchmark import input as training_input
from emanet_jax.config import default_config
from emanet_jax.data import pipeline
from emanet_jax.errors import UserError
from emanet_jax.progress import log_own_progress

_SECONDS = flags.DEFINE_float('seconds', 30.0, 'Time to measure for.')
_OUT = flags.DEFINE_string('out', '', 'JSON file to write the figures to.')
_CROP = flags.DEFINE_integer('crop', 513, 'input: crop size, pixels.')
_BATCH = flags.DEFINE_integer('batch', 16, 'input: examples of a batch.')
_THREADS = flags.DEFINE_integer(
  'threads', os.cpu_count(), 'input: reading threads.'
)
_PHOTOS = flags.DEFINE_integer(
  'photos', 40, 'input: how many to make up.', lower_bound=1
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', '', 'input: folder of prepared sets, instead of made-up photos.'
)
_NAME = flags.DEFINE_string('name', 'voc2012', 'input: the prepared set.')
_SPLIT = flags.DEFINE_string('split', 'trainaug', 'input: its split.')

_DEPTH = flags.DEFINE_integer('depth', 50, 'evaluate: of the ResNet.')
_IMAGES = flags.DEFINE_integer('images', 24, 'evaluate: photos to score.')
_EVAL_BATCH = flags.DEFINE_integer('eval_batch', 4, 'evaluate: batch size.')


def _input() -> tuple[dict[str, Any], str]:
  if flags.FLAGS['name'].present and not _DATA_DIR.value:
    raise UserError(
      f'--name={_NAME.value} needs --data_dir=R, the folder in which it is '
      'prepared; without both, photos are made up.'
    )
  config = default_config().data
  config.name, config.train_split = _NAME.value, _SPLIT.value
  config.crop_size, config.num_threads = _CROP.value, _THREADS.value
  if _DATA_DIR.value:
    config.data_dir, config.allow_partial = _DATA_DIR.value, True
    dataset = pipeline.open_dataset(config, (_SPLIT.value,))
  else:
    records = photos.made_up(_PHOTOS.value)
    dataset = photos.dataset_of(records, _SPLIT.value)
  result = training_input.measure(
    dataset, config, batch_size=_BATCH.value, seconds=_SECONDS.value
  )
  return result, training_input.table(result)


def _evaluate() -> tuple[dict[str, Any], str]:
  config = default_config().model
  config.backbone.depth = _DEPTH.value
  result = evaluation.measure(
    config, num_images=_IMAGES.value, batch_size=_EVAL_BATCH.value
  )
  return result, evaluation.table(result)


# What there is to measure: → the figures, and a table of them.
_BENCHMARKS = {'evaluate': _evaluate, 'input': _input}


def main(argv: list[str]) -> None:
  """Runs one benchmark, prints its table and writes its figures."""
  if len(argv) != 2 or argv[1] not in _BENCHMARKS:
    raise app.UsageError(f'give one of {", ".join(_BENCHMARKS)}')
  log_own_progress()
  try:
    result, text = _BENCHMARKS[argv[1]]()
  except (UserError, OSError) as error:
    sys.exit(f'error: {error}')
  print(text)
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
  app.run(main)
