"""What XLA makes of the training step on a GPU, compiled where there is none.

As a program (`python tests/test_ahead_of_time.py FOLDER`) it compiles for four
H100s and writes the optimised HLO there. The tests run it in a process of its
own: the GPU's compiler is a plugin that would stay in every later test.
"""

import importlib.util
import math
import os
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from emanet_jax.config import default_config
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding
from emanet_jax.state import train_state
from emanet_jax.training.compile import compile_step
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import create_optimizer

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
HARDWARE = REPOSITORY / 'emanet_jax' / 'tools' / 'plan' / 'h100.textproto'

# Parts that compute in float32 whatever the dtype of the features.
IN_FLOAT32 = (
  *('/bnc,bkc->bnk/', '/bnk,bnc->bkc/', '/bnk,bkc->bnc/'),  # E, M, X = Z mu
  *('/classifier/', '.upsample/'),
)


def has_compiler() -> bool:
  """Whether XLA for NVIDIA GPUs is installed; it needs neither GPU nor driver.

  `pip install jax-cuda12-plugin==X` with X the version of jax.
  """
  try:
    return importlib.util.find_spec('jax_plugins.xla_cuda12') is not None
  except ModuleNotFoundError:  # no plugin of any kind
    return False


pytestmark = pytest.mark.skipif(
  not has_compiler(), reason='jax-cuda12-plugin is not installed'
)


class Product(NamedTuple):
  """A call of cuDNN or cuBLAS.

  Attributes:
    target: Its name there.
    dtypes: Of the two operands.
    window: Of a convolution, in taps: (3, 3); () of a matrix product.
    operations: Multiplications and additions, as if nothing were padding.
    origin: Where in the network it comes from.
  """

  target: str
  dtypes: tuple[str, str]
  window: tuple[int, ...]
  operations: int
  origin: str


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """The text of each compiled program, by its name."""
  folder = tmp_path_factory.mktemp('ahead_of_time')
  # A flag, because what train compiles takes no options. Triton's matrix
  # products cannot be compiled where their tiles cannot be tried out.
  flags = '--xla_gpu_enable_triton_gemm=false'
  environment = {
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(REPOSITORY),
    'XLA_FLAGS': flags,
  }
  done = subprocess.run(
    [sys.executable, __file__, str(folder)],
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stdout
  return {p.stem: p.read_text() for p in folder.glob('*.hlo')}


@pytest.fixture(scope='module')
def step(programs):
  """The products of a training step."""
  return list(read(programs['step']))


def read(hlo: str):
  """Yields the calls of cuDNN and cuBLAS in a program's text."""
  types = dict(re.findall(r'%([\w.-]+) = \(?(\w+\[[\d,]*\])', hlo))
  for line in hlo.splitlines():
    call = re.search(
      r'= (.*) custom-call\(%(\S+), %([^\s,)]+).*target="([^"]+)', line
    )
    if not call or not call[4].startswith(('__cudnn$conv', '__cublas')):
      continue
    result, left, right = (
      _type(t) for t in (call[1].strip('('), types[call[2]], types[call[3]])
    )
    size = re.search(r'window={size=([\dx]+)', line)
    origin = re.search(r'op_name="([^"]*)"', line)
    yield Product(
      target=call[4],
      dtypes=(left[0], right[0]),
      window=tuple(int(n) for n in size[1].split('x')) if size else (),
      operations=_operations(line, call[4], left[1], right[1], result[1]),
      origin=origin[1] if origin else '',
    )


def _type(text):
  dtype, shape = re.match(r'(\w+)\[([\d,]*)', text).groups()
  return dtype, [int(n) for n in shape.split(',') if n]


def _operations(line, target, left, right, result):
  if target.startswith('__cublas'):
    axes = re.search(r'lhs_contracting_dimensions":\[([^\]]*)', line)[1]
    summed = math.prod(left[int(a)] for a in re.findall(r'\d+', axes))
    return 2 * math.prod(result) * summed
  # What cuDNN calls x, kernel and y is found in other places of each gradient;
  # y is the one of the three that has the kernel's features last.
  kernel = result if 'BackwardFilter' in target else right
  y = result if 'Forward' in target else (right if kernel is result else left)
  return 2 * math.prod(kernel) * math.prod(y[:3])


def large_windows(found):
  return [p for p in found if any(size > 3 for size in p.window)]


def test_no_convolution_has_a_kernel_as_large_as_the_features(step):
  convolutions = [p for p in step if p.window]
  assert len(convolutions) >= 40, (
    'these are not all forward and input gradients'
  )
  assert not large_windows(convolutions)


def test_the_library_gradient_of_an_atrous_kernel_would_have_one(programs):
  found = large_windows(read(programs['library']))
  assert [p.window for p in found] == [(65, 65)]


def test_features_are_multiplied_in_bfloat16(step):
  wide = [p for p in step if set(p.dtypes) != {'bf16'}]
  strays = [p for p in wide if not any(n in p.origin for n in IN_FLOAT32)]
  assert not strays
  total = sum(p.operations for p in step)
  assert sum(p.operations for p in wide) < 0.01 * total


def test_each_device_does_its_share_of_the_work_once(step):
  # Forward, 151e9 multiply-adds an image (ResNet-50, 513 x 513), and as many
  # for either gradient; taps in the padding may be left out or added.
  images = 16 / 4
  operations = sum(p.operations for p in step)
  assert 0.9 < operations / (2 * 3 * 151e9 * images) < 1.1


def exchanges(hlo):
  """Name, and bytes of the largest array, of each exchange between devices."""
  names = 'all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter'
  for result, name in re.findall(rf'= (.*?) ({names})(?:-start)?\(', hlo):
    sizes = [
      (2 if dtype == 'bf16' else 4)
      * math.prod(int(n) for n in shape.split(',') if n)
      for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', result)
    ]
    yield name, max(sizes)


def test_devices_exchange_sums_and_no_features(programs):
  found = list(exchanges(programs['step']))
  assert {name for name, _ in found} == {'all-reduce', 'all-gather'}
  # Moments of a normalisation: two of at most 2048 channels, of four devices.
  assert max(n for name, n in found if name == 'all-gather') == 2 * 2048 * 4 * 4


def test_devices_wait_for_each_other_twice_a_normalisation(programs):
  """Once forward, once in its gradient; the rest are the weights' gradients."""
  names = [name for name, _ in exchanges(programs['step'])]
  norms = 3 + 16 * 3 + 4 + 3  # stem, blocks, shortcuts, head
  assert names.count('all-gather') <= norms
  assert len(names) <= 2 * norms


def test_gradients_are_summed_in_bfloat16_in_few_pieces(programs):
  """34.8 M parameters; the rest is statistics, of some kilobytes each."""
  sent = [
    [
      (dtype, 2 * math.prod(int(n) for n in shape.split(',') if n))
      for dtype, shape in re.findall(r'(bf16|f32)\[([\d,]*)\]', result)
    ]
    for result in re.findall(
      r'= (.*?) all-reduce(?:-start)?\(', programs['step']
    )
  ]
  large = [pieces for pieces in sent if sum(n for _, n in pieces) > 1 << 20]
  assert 1 <= len(large) <= 8
  assert {dtype for pieces in large for dtype, _ in pieces} == {'bf16'}
  total = sum(n for pieces in large for _, n in pieces)
  assert total == pytest.approx(2 * 34.8e6, rel=0.02)


def _main(folder):
  topology = topologies.get_topology_desc(
    'h100', 'cuda', target_config=HARDWARE.read_text(), topology='1x1x4'
  )
  mesh = sharding.create_mesh(topology.devices)
  for name, compiled in {
    'library': _compile_library(mesh),
    'step': _compile_step(mesh),
  }.items():
    (folder / f'{name}.hlo').write_text(compiled.as_text())


def _compile_library(mesh):
  """The gradient of a dilated kernel as JAX derives it."""
  x = jax.ShapeDtypeStruct((4, 65, 65, 64), jnp.bfloat16)
  kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.bfloat16)

  def total(kernel, x):
    y = jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      [(2, 2)] * 2,
      rhs_dilation=(2, 2),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return jnp.square(y).sum()

  arguments = _replicated(kernel, mesh), _split(x, mesh)
  return jax.jit(jax.grad(total)).lower(*arguments).compile()


def _compile_step(mesh):
  """The recipe's step, with the smaller backbone, as training compiles it."""
  config = default_config()
  config.model.dtype = 'bfloat16'
  config.model.backbone.depth = 50
  model = create_model(config.model, num_classes=21)
  tx, _ = create_optimizer(
    config.optimizer, config.train.steps, model.frozen_params()
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    lambda key: train_state.create_state(model, tx, key), key
  )
  return compile_step(
    config,
    model,
    tx,
    create_loss(config.loss),
    mesh,
    _replicated(state, mesh),
    _replicated(key, mesh),
  )


def _replicated(tree, mesh):
  return _placed(tree, sharding.replicated(mesh))


def _split(tree, mesh):
  return _placed(tree, sharding.batch_sharding(mesh))


def _placed(tree, where):
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
  )


if __name__ == '__main__':
  _main(pathlib.Path(sys.argv[1]))
