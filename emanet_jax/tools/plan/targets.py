"""Machines that can be compiled for without being there.

TPU slices through libtpu, H100s through JAX's plugin for CUDA, neither of which
needs the hardware or a driver then; and CPU devices of this machine.
"""

import dataclasses
import importlib.util
import math
import os
import re
from pathlib import Path

import jax
from jax.experimental import topologies

from emanet_jax.errors import UserError

_INSTALL = (
  'which is not installed: pip install ".[plan]" in the checkout, in an '
  'environment of its own'
)
_CUDA_PLUGINS = ('jax_plugins.xla_cuda12', 'jax_plugins.xla_cuda13')
_H100 = Path(__file__).with_name('h100.textproto')


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device's limits, as its vendor states them.

  Attributes:
    name: As people say it.
    platform: 'tpu', 'cuda' or 'cpu', as JAX says it.
    memory: Bytes that programs can have.
    flops: Dense bfloat16 operations a second.
    bandwidth: Of its memory, bytes a second.
    link: Bytes a second that it sends to others, one way.
    pattern: What follows its name and a colon in a target, as a regex.
    example: A target, for messages.
    source: Where the figures are from.
  """

  name: str
  platform: str
  memory: float
  flops: float
  bandwidth: float
  link: float
  pattern: str
  example: str
  source: str


# TPUs' memory: what libtpu 0.0.42 says there is when a program does not fit.
# Links: half of the bidirectional bandwidth a chip.
CHIPS = {
  'v5e': Chip(
    name='TPU v5e',
    platform='tpu',
    memory=15.75 * 2**30,
    flops=197e12,
    bandwidth=819e9,
    link=200e9,
    pattern=r'\d+x\d+',
    example='v5e:4x8',
    source='https://docs.cloud.google.com/tpu/docs/v5e',
  ),
  'v6e': Chip(
    name='TPU v6e',
    platform='tpu',
    memory=31.25 * 2**30,
    flops=918e12,
    bandwidth=1638e9,
    link=400e9,
    pattern=r'\d+x\d+',
    example='v6e:2x4',
    source='https://docs.cloud.google.com/tpu/docs/v6e',
  ),
  'v5p': Chip(
    name='TPU v5p',
    platform='tpu',
    memory=95.74 * 2**30,
    flops=459e12,
    bandwidth=2765e9,
    link=600e9,
    pattern=r'\d+x\d+x\d+',
    example='v5p:2x2x1',
    source='https://docs.cloud.google.com/tpu/docs/v5p',
  ),
  # Memory and its bandwidth as in h100.textproto, which a GPU told XLA of; JAX
  # takes three quarters, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
  'h100': Chip(
    name='H100 SXM 80 GB',
    platform='cuda',
    memory=0.75 * 84_929_347_584,
    flops=989e12,
    bandwidth=3352e9,
    link=450e9,
    pattern=r'(\d+x)?\d+',
    example='h100:8, or h100:4x8 for 4 hosts of 8',
    source='https://www.nvidia.com/en-us/data-center/h100/',
  ),
  # No vendor: without limits, there is no time and nothing is too large.
  'cpu': Chip(
    name='CPU device',
    platform='cpu',
    memory=math.inf,
    flops=math.inf,
    bandwidth=math.inf,
    link=math.inf,
    pattern=r'\d+',
    example='cpu:4',
    source='',
  ),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Chips of one kind.

  Attributes:
    chip: Their kind.
    shape: How many: of hosts and devices of each, or of a slice's sides.
    text: As given.
  """

  chip: Chip
  shape: tuple[int, ...]
  text: str

  @property
  def size(self) -> int:
    """How many devices."""
    return math.prod(self.shape)


def parse(text: str) -> Target:
  """The target of a text as 'v5e:4x8'; UserError for unknown ones."""
  kind, _, shape = text.partition(':')
  chip = CHIPS.get(kind)
  known = '; '.join(chip.example for chip in CHIPS.values())
  if not chip or not re.fullmatch(chip.pattern, shape):
    raise UserError(f'--target={text} is not known; give one as {known}')
  sides = tuple(int(side) for side in shape.split('x'))
  if not all(sides):
    raise UserError(f'--target={text} has no device; give one as {known}')
  return Target(chip, sides, text)


def prepare(target: Target) -> None:
  """Has this process compile for a target; to be called before JAX is used.

  Raises:
    UserError: The target's compiler is not installed.
  """
  platform = target.chip.platform
  if platform == 'tpu' and not importlib.util.find_spec('libtpu'):
    raise UserError(f'--target={target.text} needs libtpu, {_INSTALL}')
  if platform == 'cuda' and not any(map(_is_installed, _CUDA_PLUGINS)):
    raise UserError(
      f'--target={target.text} needs jax-cuda12-plugin, {_INSTALL}'
    )
  # Nothing is run, and no accelerator of this machine is taken.
  jax.config.update('jax_platforms', 'cpu')
  if platform == 'cpu':
    jax.config.update('jax_num_cpu_devices', target.size)
  if platform == 'cuda':
    # Triton's products cannot be compiled where they cannot be tried out.
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_enable_triton_gemm=false'
  if platform == 'tpu':
    # At its usual effort the compiler tries kernels out for hours.
    jax.config.update('jax_optimization_level', 'O0')
    os.environ |= {
      'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true',
      'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # of a host, which is not asked
      'TPU_LOG_DIR': 'disabled',
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_WORKER_HOSTNAMES': 'localhost',
    }


def devices(target: Target) -> list[jax.Device]:
  """A target's devices, to compile for.

  Raises:
    UserError: There is no such slice.
  """
  if target.chip.platform == 'cpu':
    return jax.devices('cpu')[: target.size]
  if target.chip.platform == 'cuda':
    hosts, each = (1, *target.shape)[-2:]
    topology = topologies.get_topology_desc(
      'h100',
      'cuda',
      target_config=_H100.read_text(),
      topology=f'1x{hosts}x{each}',
    )
    return list(topology.devices)
  options = {'chips_per_host_bounds': [1, 1, 1]} if target.size == 1 else {}
  try:
    topology = topologies.get_topology_desc(
      platform='tpu', topology_name=target.text, **options
    )
  except jax.errors.JaxRuntimeError as error:
    raise UserError(f'--target={target.text}: {error}') from error
  return list(topology.devices)


def _is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # nor what it lies in
    return False
