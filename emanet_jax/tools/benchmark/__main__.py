"""How fast the parts are, on this machine, and beside PyTorch if it is there.

  python -m emanet_jax.tools.benchmark WHAT

  model     the network's evaluation: normalised images to logits
  train     a training step
  em        the EM attention unit
  compile   a training step's first start and its second, from the cache
  evaluate  evaluation in batches of one shape against one image at a time
  scaling   how time and memory grow with pixels, bases and rounds, beside those
            of non-local attention; draws scaling.png
  input     the training input against the decoding of its records alone: of
            photos made up for it, or of a prepared data set:
            --data_dir=data --name=camvid --split=train

model and train take --head=NAME, and are compared where PyTorch's twin has it.
Prints a table; --out=FILE writes all figures as JSON.
"""

import json
import os
import pathlib
import sys
from typing import Any

from absl import app, flags

from emanet_jax import parts
from emanet_jax.config import default_config
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation.settings import get_batch_size
from emanet_jax.runtime import atomic, places
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.tools.benchmark import (
  evaluation,
  network,
  photos,
  scaling,
  scaling_figure,
)
from emanet_jax.tools.benchmark import input as training_input

_OUT = flags.DEFINE_string('out', '', 'JSON file to write the figures to.')
_DEPTH = flags.DEFINE_integer('depth', 50, 'Of the ResNet.')
_HEAD = flags.DEFINE_enum(
  'head', 'ema', parts.HEADS.names(), 'model, train, compile: which one.'
)
_STRIDE = flags.DEFINE_integer(
  'output_stride', 8, "model, train, compile: the backbone's: 8, 16 or 32."
)
_DTYPE = flags.DEFINE_enum(
  'dtype', None, ['float32', 'bfloat16'], 'Default: bfloat16 on a GPU.'
)
_BATCH = flags.DEFINE_integer(
  'batch', None, 'Images of a step or batch.', lower_bound=1
)
_SIZE = flags.DEFINE_integer(
  'size',
  None,
  'Of the images, in pixels; em: of the features; scaling: of the largest, of '
  'four.',
)
_REMAT = flags.DEFINE_bool(
  'remat', False, 'train, compile: compute each block anew for its gradient.'
)
_FLAX = flags.DEFINE_bool(
  'flax', False, "model, train: beside it, with flax's convolutions."
)
_TORCH = flags.DEFINE_bool(
  'torch',
  True,
  'model, train, em: beside PyTorch, where it is installed and has a twin.',
)
_CHANNELS = flags.DEFINE_integer(
  'channels',
  512,
  'em: of the features; scaling: and half as many.',
  lower_bound=1,
)
_PNG = flags.DEFINE_string('png', 'scaling.png', 'scaling: file to draw.')
_ROUNDS = flags.DEFINE_integer(
  'rounds',
  7,
  'model, train, em, scaling, evaluate: turns of each.',
  lower_bound=1,
)
_STEPS = flags.DEFINE_integer(
  'steps', 3, 'model, train, em: steps of a turn.', lower_bound=1
)
_IMAGES = flags.DEFINE_integer('images', 24, 'evaluate: photos to score.')
_SECONDS = flags.DEFINE_float('seconds', 30.0, 'input: time to measure for.')
_CROP = flags.DEFINE_integer('crop', 513, 'input: crop size, pixels.')
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


def _model() -> tuple[dict[str, Any], str]:
  return _contest('forward', **_network(), **_images(1, 513))


def _train() -> tuple[dict[str, Any], str]:
  return _contest('train', remat=_REMAT.value, **_network(), **_images(2, 257))


def _em() -> tuple[dict[str, Any], str]:
  return _contest('em', channels=_CHANNELS.value, **_images(1, 65))


def _network() -> dict[str, Any]:
  return {
    'depth': _DEPTH.value,
    'head': _HEAD.value,
    'output_stride': _STRIDE.value,
  }


def _images(batch: int, size: int) -> dict[str, Any]:
  """The flags that describe a step's images, or what is usual for it."""
  return {
    'batch': _BATCH.value or batch,
    'size': _SIZE.value or size,
    'dtype': _dtype(),
  }


def _dtype() -> str:
  return _DTYPE.value or ('bfloat16' if network.has_gpu() else 'float32')


def _contest(what: str, **options) -> tuple[dict[str, Any], str]:
  result = network.measure(
    what,
    options,
    rounds=_ROUNDS.value,
    steps=_STEPS.value,
    with_flax=_FLAX.value and what != 'em',
    with_torch=_TORCH.value,
  )
  return result, network.table(result)


def _compile() -> tuple[dict[str, Any], str]:
  options = {**_network(), 'remat': _REMAT.value}
  result = network.starts({**options, **_images(2, 129)})
  return result, network.table_of_starts(result)


def _scaling() -> tuple[dict[str, Any], str]:
  size, channels = _SIZE.value or 513, _CHANNELS.value
  if size < 9 or channels < 2:
    raise UserError(
      f'--size={size} --channels={channels}: scaling needs 9 pixels and 2 '
      'channels, since it halves them'
    )
  config = default_config().model
  config.backbone.depth, config.dtype = _DEPTH.value, _dtype()
  result = scaling.measure(
    config,
    sides=[(size - 1) // 2**i + 1 for i in (3, 2, 1, 0)],
    channels=(channels, channels // 2),
    rounds=_ROUNDS.value,
  )
  return result, scaling.table(result)


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
    dataset, config, batch_size=_BATCH.value or 16, seconds=_SECONDS.value
  )
  return result, training_input.table(result)


def _evaluate() -> tuple[dict[str, Any], str]:
  config = default_config().model
  config.backbone.depth = _DEPTH.value
  config.dtype = _dtype()
  result = evaluation.measure(
    config,
    num_images=_IMAGES.value,
    batch_size=_BATCH.value or get_batch_size(default_config()),
    rounds=_ROUNDS.value,
  )
  return result, evaluation.table(result)


# What there is to measure: → the figures, and a table of them.
_BENCHMARKS = {
  'model': _model,
  'train': _train,
  'em': _em,
  'compile': _compile,
  'evaluate': _evaluate,
  'scaling': _scaling,
  'input': _input,
}


def main(argv: list[str]) -> None:
  """Runs one benchmark, prints its table and writes its figures."""
  if len(argv) != 2 or argv[1] not in _BENCHMARKS:
    raise app.UsageError(f'give one of {", ".join(_BENCHMARKS)}')
  log_own_progress()
  out, png = map(os.path.expanduser, (_OUT.value, _PNG.value))
  try:
    for path in (out, png):
      places.check_folder(pathlib.Path(path).parent)
    result, text = _BENCHMARKS[argv[1]]()
  except (UserError, OSError) as error:
    sys.exit(f'error: {error}')
  print(text)
  if out:
    atomic.write(out, json.dumps(result, indent=2) + '\n')
  if argv[1] == 'scaling':
    scaling_figure.scaling_png(png, result)
    print(f'curves drawn: {png}')


if __name__ == '__main__':
  app.run(main)
