"""What a run would need on machines that are not here."""

import importlib.util
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding
from emanet_jax.tools.plan import forecast, hlo, programs, report, targets
from emanet_jax.tools.plan.plan import plan
from tests import tiny
from tests.programs import run_python


@pytest.mark.parametrize(
  ('text', 'size', 'platform'),
  [
    ('v5e:4x8', 32, 'tpu'),
    ('v6e:16x16', 256, 'tpu'),
    ('v5p:2x2x4', 16, 'tpu'),
    ('h100:1', 1, 'cuda'),
    ('h100:4x8', 32, 'cuda'),
    ('cpu:4', 4, 'cpu'),
  ],
)
def test_a_target_is_a_kind_and_how_many(text, size, platform):
  target = targets.parse(text)
  assert (target.size, target.chip.platform) == (size, platform)


@pytest.mark.parametrize(
  'text',
  ['', 'v5e', 'v5e:4', 'v5e:2x2x2', 'v5p:2x2', 'v9:2x2', 'h100:0', 'cpu:-1'],
)
def test_another_target_is_an_error_that_lists_the_known(text):
  with pytest.raises(UserError) as error:
    targets.parse(text)
  assert f'--target={text} ' in str(error.value)
  assert all(
    chip.example in str(error.value) for chip in targets.CHIPS.values()
  )
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('text', 'package'),
  [('v5e:2x2', 'libtpu'), ('h100:8', 'jax-cuda12-plugin')],
)
def test_without_its_compiler_an_error_says_what_to_install(
  monkeypatch, text, package
):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError) as error:
    targets.prepare(targets.parse(text))
  assert package in str(error.value)
  assert 'pip install ".[plan]"' in str(error.value)
  assert '\n' not in str(error.value)


def test_chips_have_a_source_and_the_usual_balance():
  for chip in targets.CHIPS.values():
    if chip.platform == 'cpu':
      continue
    assert chip.source.startswith('https://')
    # Operations a byte: 1e2 to 1e3 on every chip of these years.
    assert 100 < chip.flops / chip.bandwidth < 1000
    assert chip.link < chip.bandwidth


# Written by hand, in the manner of XLA's for TPUs and GPUs.
HLO = pathlib.Path(__file__).with_name('step.hlo').read_text()


def test_collectives_are_counted_with_their_bytes_and_groups():
  found = {
    (c.kind, c.group, c.times): c.bytes
    for c in hlo.read(HLO, num_devices=8).collectives
  }
  assert found == {
    ('all-reduce', 4, 3): 4000,  # in a loop of three rounds
    ('all-gather', 8, 1): 2 * 64 * 32,
    ('reduce-scatter', 2, 1): 4 * 2 * 9 * 9 * 16,
    ('collective-permute', 8, 1): 4 * 9 * 9 * 16,
    ('all-reduce', 8, 1): 2 * 8 * 32,  # of what is named; %bias is nowhere
  }


@pytest.mark.parametrize(
  ('kind', 'sent'),
  [
    ('all-reduce', 2 * 750),
    ('all-gather', 750),
    ('reduce-scatter', 750),
    ('all-to-all', 750),
    ('collective-permute', 1000),
  ],
)
def test_what_a_device_sends_follows_from_the_kind(kind, sent):
  one = hlo.Collective(kind, bytes=1000, group=4, times=3)
  assert one.sent == 3 * sent


def test_operations_have_their_products_and_their_traffic():
  found = {o.name: o for o in hlo.read(HLO, num_devices=8).operations}
  assert found == {
    'head/fc (gradient)': hlo.Operation(
      'head/fc (gradient)',
      flops=2 * 8 * 32 * 64,
      bytes=2 * (8 * 64 + 64 * 32 + 8 * 32),
      times=1,
    ),
    'backbone/stem1/conv': hlo.Operation(
      'backbone/stem1/conv',
      flops=2 * (2 * 9 * 9 * 16) * (3 * 3 * 3),
      bytes=4 * (2 * 9 * 9 * 3 + 3 * 3 * 3 * 16 + 2 * 9 * 9 * 16),
      times=1,
    ),
  }


@pytest.mark.parametrize(
  ('call', 'operands', 'result'),
  [
    ('Forward', ('[4,65,65,64]', '[3,3,64,32]'), '[4,65,65,32]'),
    ('BackwardInput', ('[4,65,65,32]', '[3,3,64,32]'), '[4,65,65,64]'),
    ('BackwardFilter', ('[4,65,65,64]', '[4,65,65,32]'), '[3,3,64,32]'),
  ],
)
def test_each_gradient_by_cudnn_counts_as_the_forward_pass(
  call, operands, result
):
  left, right = operands
  text = f"""ENTRY %main (a: bf16{left}, b: bf16{right}) -> bf16{result} {{
  %a = bf16{left} parameter(0)
  %b = bf16{right} parameter(1)
  %c = (bf16{result}, u8[0]) custom-call(%a, %b), \
custom_call_target="__cudnn$conv{call}"
}}"""
  (one,) = hlo.read(text, 1).operations
  assert one.flops == 2 * (4 * 65 * 65 * 32) * (3 * 3 * 64)


def test_a_program_of_four_devices_is_read_as_it_was_written():
  mesh = sharding.create_mesh(jax.devices()[:4])
  split = NamedSharding(mesh, PartitionSpec(None, ('data', 'fsdp')))
  rows = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
  x = jax.ShapeDtypeStruct((64, 4 * 128), jnp.float32, sharding=split)
  w = jax.ShapeDtypeStruct((4 * 128, 32), jnp.float32, sharding=rows)
  product = jax.jit(jnp.matmul, out_shardings=sharding.replicated(mesh))
  program = hlo.read(product.lower(x, w).compile().as_text(), 4)
  assert program.collectives == [
    hlo.Collective('all-reduce', 64 * 32 * 4, 4, 1)
  ]
  assert program.flops == 2 * 64 * 32 * 128
  assert program.bytes >= 4 * (64 * 128 + 128 * 32 + 64 * 32)


def test_times_are_work_by_limits():
  chip = targets.Chip('', 'tpu', 1e9, 100.0, 10.0, 2.0, '', '', 'somewhere')
  memory = forecast.Memory(arguments=4, temporary=3, results=2, code=1)
  assert memory.peak == 10
  exchanged = [hlo.Collective('all-reduce', 16, 4, 2)]  # 2 · 16 · 2 · 3/4 = 48
  found = forecast.Forecast(
    memory, 1000.0, 300.0, 35.0, False, exchanged, slowest=[]
  )
  assert found.sent == 48
  assert found.exchange(chip) == 24
  assert found.bound(chip) == 30  # of 10 for products, 30 for memory, 24
  assert found.seconds(chip) == 35 + 24


def test_a_report_says_what_fits_how_fast_and_how_long():
  chip = targets.Chip('', 'tpu', 4e9, 1e14, 1e12, 1e12, '', '', 'somewhere')
  found = forecast.Forecast(
    forecast.Memory(1_000_000_000, 2_000_000_000, 0, 0),
    flops=1e12,
    bytes=30e9,
    estimate=0.036,
    by_compiler=True,
    collectives=[hlo.Collective('all-gather', 16_000_000_000, 4, 1)],
    slowest=[('backbone/layer4_0', 0.25)],
  )
  told = report.step(found, chip, batch=24, steps=300_000, shares=4)
  assert 'training step, 24 images, 6 a device' in told
  assert '3,000 MB (arguments 1,000, temporaries 2,000' in told
  assert 'fits, 75% of 4.0 GB' in told
  assert '1 all-gather of 16,000.00 MB in all' in told
  assert '30.0 ms: products 10.0, memory 30.0, exchanges 12.0' in told
  assert '48.0 ms: 36.0 operation by operation (the compiler' in told
  assert '500 images/s (800 by the roofline); 300000 steps in 4 hours' in told
  assert ' 25.0%  backbone/layer4_0' in told
  assert report.fits(4_400_000_000, chip) == 'does NOT fit, 110% of 4.0 GB'


@pytest.mark.parametrize(
  ('peak', 'capacity', 'largest', 'compilations'),
  [
    (lambda n: 100 + 10 * n, 395.0, 29, 3),
    (lambda n: 100 + 10 * n if n < 30 else None, 395.0, 29, 3),
    (lambda n: 100 + 10 * n + 0.1 * n**2, 395.0, 23, 5),
    (lambda n: 100 + 10 * n, 165.0, 6, 3),
    (lambda n: 100 + 10 * n, 125.0, 2, 3),
    (lambda n: 100 + 10 * n if n < 4 else None, 125.0, 2, 4),
    (lambda n: 100 + 10 * n, 105.0, 0, 3),
    (lambda n: 100.0, 105.0, 64, 3),
    # Faster, and all of a sudden more, from some number on.
    (lambda n: 100 + 10 * n + 2 * max(0, n - 16), 395.0, 27, 4),
    (lambda n: 100 + 10 * n + 50 * (n > 20), 395.0, 24, 5),
    # The compiler refuses what the line says would fit.
    (lambda n: 100 + 10 * n if n < 20 else None, 395.0, 18, 6),
  ],
)
def test_the_largest_batch_is_found_in_few_compilations(
  peak, capacity, largest, compilations
):
  asked = []

  def compile_one(images):
    asked.append(images)
    return peak(images)

  found = forecast.largest_fitting(compile_one, capacity, first=4, most=64)
  assert found == largest
  assert len(asked) == len(set(asked)) <= compilations


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
  config = tiny.tiny_config(train__batch_size=8)
  config.data.data_dir = str(tmp_path_factory.mktemp('nothing_prepared'))
  target = targets.parse('cpu:4')
  return '\n'.join(plan(config, target, eval_size=(20, 50)))


def test_a_plan_says_that_nothing_was_run(planned):
  assert 'Compiled prediction: nothing was run' in planned


def test_a_step_exchanges_its_gradients(planned):
  found = re.search(r'(\d+) all-reduce of ([\d.]+) MB', planned)
  model = create_model(tiny.tiny_config().model, 7)
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3)))
  )
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params']))
  assert float(found[2]) == pytest.approx(4 * count / 1e6, rel=0.05)


def test_the_evaluation_has_the_largest_image_padded(planned):
  assert 'of images of 50×20, as given' in planned
  assert 'the largest batch: 8 of 57×25' in planned


def test_the_evaluation_splits_rows_as_the_run_would():
  config = tiny.tiny_config(mesh__space=2)
  found, program = programs.largest_evaluation(
    config, 7, jax.devices()[:4], [(50, 20)]
  )
  assert dict(found.mesh.shape) == {'data': 2, 'fsdp': 1, 'space': 2}
  assert 'collective-permute' in program.as_text()


@pytest.mark.parametrize(
  ('target', 'changes', 'told'),
  [
    ('cpu:4', {'train__batch_size': 6}, 'it must be a multiple of 4'),
    ('cpu:3', {'mesh__fsdp': 2}, 'must divide the number of devices, 3'),
    ('cpu:4', {'data__name': 'folder'}, 'prepare it first'),
  ],
)
def test_a_mistake_is_told_before_anything_is_compiled(target, changes, told):
  paragraphs = plan(tiny.tiny_config(**changes), targets.parse(target))
  with pytest.raises(UserError, match=told):
    next(paragraphs)


@pytest.mark.slow  # half a minute each, and CI lacks the compilers
@pytest.mark.parametrize(
  ('target', 'module'), [('v5e:2x2', 'libtpu'), ('h100:4', 'jax_plugins')]
)
def test_accelerators_that_are_not_here_are_planned_for(
  target, module, tmp_path
):
  if not importlib.util.find_spec(module):
    pytest.skip('the extra `plan` is not installed')
  flags = {**tiny.CHANGES, 'train.batch_size': 8, 'data.data_dir': tmp_path}
  finished = run_python(
    *('-m', 'emanet_jax.tools.plan', '--config=configs/shapes.py'),
    *(f'--config.{key}={value}' for key, value in flags.items()),
    *(f'--target={target}', '--largest_batch=false'),
  )
  assert re.search(r'fits, \d+% of', finished.stdout)
  assert re.search(r'\d+ all-reduce of 0\.\d+ MB', finished.stdout)
  assert re.search(r'predicted +[1-9]\d* images/s', finished.stdout)


def test_the_program_ends_in_one_line_for_a_mistake(commands):
  flags = ('--config=configs/shapes.py', '--target=h200:8')
  finished = commands.run('emanet_jax.tools.plan', *flags)
  assert finished.returncode == 1
  last = finished.stderr.splitlines()[-1]
  assert last.startswith('error: --target=h200:8 is not known; give one as')
