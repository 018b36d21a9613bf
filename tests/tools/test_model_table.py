"""What networks cost by the paper's rules is what the paper prints."""

import csv
import functools

import jax
import pytest

from emanet_jax.config import default_config
from emanet_jax.models.segmenter import create_model
from emanet_jax.tools.model_table import counting, paper
from tests import tiny

# What is counted, to one digit more than what is printed.
FOUND = {
  'ResNet-101': (190.58, 42.62, 2603.28),
  'EMANet (256)': (20.98, 4.87, 12.27),  # prints 21.1 G: 0.6 % more
  'EMANet (512)': (43.07, 10.00, 22.10),
  'DeepLabV3': (63.42, 15.54),
  'PSANet': (56.33, 18.49),
}


def create(options, stage_sizes=()):
  config = default_config().model
  config.convolution, config.dtype = 'flax', 'float32'
  config.backbone.stage_sizes = stage_sizes
  for key, value in options.items():
    config.update_from_flattened_dict({f'head.{key}': value})
  return create_model(config, 21)


@pytest.mark.parametrize('printed', paper.ROWS, ids=lambda row: row.title)
def test_the_papers_rules_give_its_figures(printed):
  sizes = () if printed.part == 'backbone' else (1, 1, 1, 1)  # counts no head's
  model = create(printed.options, sizes)
  found = paper.counted(printed, counting.measure(model, 513))
  assert tuple(found.values()) == pytest.approx(FOUND[printed.title], abs=0.005)
  for key, value in found.items():
    assert value == pytest.approx(getattr(printed, key), rel=0.006)


def test_layers_are_counted_as_torchstat_does():
  """A stage of one bottleneck at 33² behind a stem of one convolution."""
  config = tiny.tiny_config().model
  config.head.name = 'fcn'
  config.convolution = 'flax'
  config.backbone.stage_sizes = (1, 1, 1, 1)
  config.backbone.width, config.backbone.stem_widths = 2, (3,)
  cost = counting.measure(create_model(config, 5), 33)
  stem, first = 17 * 17, 9 * 9  # positions of their outputs
  part = 'backbone/stem1'
  assert counting.total(cost.convolutions, part) == stem * 7 * 7 * 3 * 3
  assert counting.total(cost.parameters, part) == 7 * 7 * 3 * 3 + 2 * 3
  assert counting.total(cost.outputs, part) == 3 * stem * 3  # with norm, ReLU
  assert counting.total(cost.layers, part) == (2 + 1) * stem * 3
  part = 'backbone/layer1_0'
  kernels = 3 * 2 + 9 * 2 * 2 + 2 * 8 + 3 * 8
  assert counting.total(cost.convolutions, part) == first * kernels
  maps = 2 + 2 + 8 + 8  # of three convolutions, and of the shortcut's
  assert counting.total(cost.outputs, part) == first * (2 * maps + 8)
  assert counting.total(cost.layers, part) == first * (2 * maps + 8)
  assert counting.total(cost.parameters, part) == kernels + 2 * maps


def test_shares_count_in_part():
  counts = {'head': 1, 'head/a': 10, 'head/a/b': 100, 'head/ab': 1000}
  assert counting.total(counts, 'head') == 1111
  assert counting.total(counts, 'head/a') == 110
  assert counting.total(counts, 'head', {'head/a': 0.5}) == 1056
  assert counting.total(counts, 'head/b') == 0


@pytest.fixture
def start(commands):
  return functools.partial(commands.run, 'emanet_jax.tools.model_table')


def test_tables_are_printed_and_written(tmp_path, start):
  done = start('--heads=fcn', '--depth=50', '--size=65', f'--out={tmp_path}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.rstrip() == (tmp_path / 'model_table.md').read_text()[:-1]
  with open(tmp_path / 'model_table.csv') as file:
    backbone, fcn = csv.DictReader(file)
  assert backbone['network'] == 'backbone alone'
  config = default_config().model
  config.head.name, config.backbone.depth = 'fcn', 50
  model = create_model(config, 21)
  image = jax.ShapeDtypeStruct((1, 65, 65, 3), 'float32')
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  for row, part in ((backbone, 'backbone'), (fcn, 'head')):
    count = sum(x.size for x in jax.tree.leaves(variables['params'][part]))
    assert float(row['parameters, M']) == round(count / 1e6, 2)
  assert '| fcn | 0.04 |' in done.stdout
  # The paper's table is of another network.
  assert 'PSANet' not in done.stdout


def test_an_unknown_head_is_refused_first(tmp_path, start):
  done = start('--heads=fcm', f'--out={tmp_path}')
  assert done.returncode == 1
  assert done.stderr.startswith('error: ')
  assert 'fcm' in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert not list(tmp_path.iterdir())
