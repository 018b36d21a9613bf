"""What every head costs, beside what the EMANet paper prints.

  python -m emanet_jax.tools.model_table [--depth=101] [--size=513] [--time]

builds each head with its defaults on a ResNet with output stride 8, and counts
for one image: parameters, multiply-adds, memory of the maps that its layers put
out (by torchstat's rules, see `counting.py`), and the operations that XLA
counts. --time has `tools.benchmark` run the evaluation and the training step of
each on this machine. Below stand the networks of the paper's Table 1, counted
by its rules (`paper.py`). Writes model_table.md and model_table.csv to --out,
and paper_table.csv where the network is the paper's.
"""

import csv
import io
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import jax
from absl import app, flags, logging

from emanet_jax import parts
from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import Segmenter, create_model
from emanet_jax.runtime import atomic, places
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.tools.model_table import counting, paper

_CLASSES = 21
_DEPTH = flags.DEFINE_integer('depth', 101, 'Of the ResNet: 18, …, 152.')
_SIZE = flags.DEFINE_integer('size', 513, 'Of the image, pixels.', 65)
_HEADS = flags.DEFINE_list('heads', [], 'Only these. Default: all.')
_TIME = flags.DEFINE_bool('time', False, 'Run each: minutes a head on a CPU.')
_BATCH = flags.DEFINE_integer('batch', 1, '--time: images of a step.', 1)
_OUT = flags.DEFINE_string('out', '.', 'Folder to write the tables to.')


def main(argv: list[str]) -> None:
  """Prints and writes the tables."""
  log_own_progress()
  try:
    if len(argv) > 1:
      raise UserError(f'{argv[1]} is not taken; heads are given by --heads')
    out = places.as_path(_OUT.value)
    places.check_folder(out)
    names = _HEADS.value or parts.HEADS.names()
    for name in names:
      parts.HEADS.module(name)  # refuses unknown ones before the work
    models = {name: _model({'name': name}) for name in names}
    rows = [_backbone(models[names[0]])]
    for name, model in models.items():
      logging.info('%s', name)
      rows.append(_head(name, model))
    text = (
      f'ResNet-{_DEPTH.value}, output stride 8, one image of {_SIZE.value}², '
      f'{_CLASSES} classes; of each head what it adds.\n\n{_markdown(rows)}'
    )
    atomic.write(out / 'model_table.csv', _csv(rows))
    if _DEPTH.value == 101 and _SIZE.value == 513:
      printed = _printed()
      text += "\nBy the paper's rules, beside what its Table 1 prints.\n\n"
      text += _markdown(printed) + f'\n{paper.LEFT_OUT}\n'
      atomic.write(out / 'paper_table.csv', _csv(printed))
    print(text)
    atomic.write(out / 'model_table.md', text)
  except (UserError, OSError) as error:
    sys.exit(f'error: {error}')


def _model(head: dict[str, Any]) -> Segmenter:
  config = default_config().model
  config.backbone.depth = _DEPTH.value
  config.convolution, config.dtype = 'flax', 'float32'  # for XLA to count
  for key, value in head.items():
    config.update_from_flattened_dict({f'head.{key}': value})
  return create_model(config, _CLASSES)


def _backbone(model: Segmenter) -> dict[str, Any]:
  return _row(
    'backbone alone', counting.measure(model, _SIZE.value), 'backbone'
  )


def _head(name: str, model: Segmenter) -> dict[str, Any]:
  row = _row(name, counting.measure(model, _SIZE.value), 'head')
  row['XLA, whole, GFLOP'] = _xla_gigaflops(model)
  if _TIME.value:
    row['evaluation, ms'] = _milliseconds('model', name)
    row['training step, ms'] = _milliseconds('train', name)
  return row


def _row(name: str, cost: counting.Cost, part: str) -> dict[str, Any]:
  def total(counts):
    return counting.total(counts, part)

  return {
    'network': name,
    'parameters, M': f'{total(cost.parameters) / 1e6:.2f}',
    'convolutions, G': f'{total(cost.convolutions) / 1e9:.1f}',
    'other products, G': f'{total(cost.products) / 1e9:.3f}',
    'other layers, G': f'{total(cost.layers) / 1e9:.3f}',
    'maps, MiB': f'{4 * total(cost.outputs) / 2**20:.1f}',
  }


def _printed() -> list[dict[str, Any]]:
  rows = []
  for printed in paper.ROWS:
    cost = counting.measure(_model(printed.options), _SIZE.value)
    found = paper.counted(printed, cost)
    row = {'network': printed.title}
    for key, unit in (
      ('multiply_adds', 'G'),
      ('parameters', 'M'),
      ('memory', 'M'),
    ):
      theirs = getattr(printed, key)
      title = f'{key.replace("_", "-")}, {unit}'
      row[title] = f'{found[key]:.2f}' if key in found else ''
      row[f"{title}: paper's"] = '' if theirs is None else f'{theirs:g}'
    rows.append(row)
  return rows


def _xla_gigaflops(model: Segmenter) -> str:
  """As XLA counts the evaluation before it is compiled; '' where it does not.

  The body of a loop counts once.
  """
  image = jax.ShapeDtypeStruct((1, _SIZE.value, _SIZE.value, 3), 'float32')
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  lowered = jax.jit(model.apply).lower(variables, image)
  counted = (lowered.cost_analysis() or {}).get('flops')
  return '' if counted is None else f'{counted / 1e9:.1f}'


def _milliseconds(what: str, head: str) -> str:
  """The median step of `tools.benchmark`, a program of its own."""
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'figures.json'
    command = [
      *(sys.executable, '-m', 'emanet_jax.tools.benchmark', what),
      *(f'--head={head}', f'--depth={_DEPTH.value}', f'--size={_SIZE.value}'),
      *(f'--batch={_BATCH.value}', '--notorch', '--rounds=1', f'--out={out}'),
    ]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
      logging.warning('%s of %s: not timed, see above', what, head)
      return ''
    seconds = json.loads(out.read_text())['contenders']['ours']['seconds'][0]
  return f'{1000 * seconds:.1f}'


def _markdown(rows: list[dict[str, Any]]) -> str:
  columns = list(dict.fromkeys(key for row in rows for key in row))
  lines = [columns, ['---'] * len(columns)]
  lines += [[row.get(key, '') for key in columns] for row in rows]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def _csv(rows: list[dict[str, Any]]) -> str:
  out = io.StringIO()
  columns = list(dict.fromkeys(key for row in rows for key in row))
  writer = csv.DictWriter(out, columns, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


if __name__ == '__main__':
  app.run(main)
