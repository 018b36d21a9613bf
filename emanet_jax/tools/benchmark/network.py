"""The network, its training step and its EM unit against PyTorch's.

Where PyTorch is installed, its twin of the network, if head and depth have one,
takes turns with ours: in both memory layouts on a CPU; on a GPU in
channels_last, as it is and through torch.compile. So may ours with flax's
convolutions, which is what this network comes to without `models/convolution`.
"""

import importlib.util
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emanet_jax.tools.benchmark import contest
from emanet_jax.tools.benchmark.contest import Contender
from emanet_jax.tools.benchmark.summary import shown, versions

_OURS = 'emanet_jax.tools.benchmark.subjects'
_TORCH = 'emanet_jax.tools.benchmark.torch_subjects'
_PEAK = 'a large product'
_FLAX = "with flax's convolutions"
# What `torch_heads` and `torch_network` have, which only PyTorch's processes
# import.
_TORCH_HEADS = ('ema', 'da', 'deeplabv3', 'nonlocal', 'psp', 'uper')
_TORCH_DEPTHS = (50, 101, 152)
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch')


def has_gpu() -> bool:
  """Whether NVIDIA's driver is there; asks no framework."""
  return Path('/dev/nvidiactl').exists()


def measure(
  what: str,
  options: dict[str, Any],
  *,
  rounds: int,
  steps: int,
  with_flax: bool = False,
  with_torch: bool = True,
) -> dict[str, Any]:
  """Measures a subject of ours beside PyTorch's.

  Args:
    what: 'forward', 'train' or 'em': a function of `subjects`.
    options: Its arguments; 'batch' images are done in a step.
    rounds: Of a turn each.
    steps: Of a turn.
    with_flax: Whether the network with flax's convolutions takes part.
    with_torch: Whether PyTorch does, where it is installed and has the head.

  Returns:
    As `contest.run`; besides, for each contender 'images_per_second',
    'flops_per_second' (all do the work that 'flops' of ours counts) and
    'share_of_peak' of the median; and 'what', 'options', 'machine', 'versions'
    and 'peak_flops_per_second', the median of a large product in JAX, which
    takes its turns like the contenders.
  """
  contenders = {'ours': Contender(f'{_OURS}:{what}', options)}
  if with_flax:
    chosen = {**options, 'convolution': 'flax'}
    contenders[_FLAX] = Contender(f'{_OURS}:{what}', chosen)
  if with_torch:
    contenders |= dict(_opponents(what, options))
  contenders[_PEAK] = Contender(f'{_OURS}:peak', {'dtype': options['dtype']})
  result = contest.run(contenders, rounds=rounds, steps=steps)
  del result['ratios'][_PEAK]
  peak = result['contenders'].pop(_PEAK)
  best = peak['flops'] / peak['seconds'][0]
  flops = result['contenders']['ours']['flops']
  for found in result['contenders'].values():
    middle, least, most = found['seconds']
    rates = [1 / middle, 1 / most, 1 / least]
    found['images_per_second'] = [options['batch'] * rate for rate in rates]
    found['flops_per_second'] = [flops * rate for rate in rates]
    found['share_of_peak'] = flops / middle / best
  return {
    'what': what,
    'options': options,
    'machine': f'{platform.machine()}, {os.cpu_count()} CPUs',
    'versions': versions(_PACKAGES),
    'peak_flops_per_second': best,
    **result,
  }


def table(result: dict[str, Any]) -> str:
  """What `measure` returned, to be read."""
  options = ', '.join(f'{k} {v}' for k, v in result['options'].items())
  ours = result['contenders']['ours']
  lines = [
    f'{result["what"]}: {options}; {ours["flops"] / 1e9:.1f} GFLOP a step; '
    f'{ours["device"]}; a large product gives '
    f'{result["peak_flops_per_second"] / 1e9:.0f} GFLOP/s',
    f'{"":26}{"seconds a step":>26}{"images/s":>10}{"GFLOP/s":>9}'
    f'{"of peak":>9}{"memory":>10}',
  ]
  for name, found in result['contenders'].items():
    lines.append(
      f'{name:26}{shown(found["seconds"], 4):>26}'
      f'{found["images_per_second"][0]:>10.2f}'
      f'{found["flops_per_second"][0] / 1e9:>9.0f}'
      f'{100 * found["share_of_peak"]:>7.0f} %'
      f'{found["peak_bytes"] / 1e9:>7.2f} GB  {found["device"]}'
    )
  lines.append(
    'compiled {compilations} program(s) in {compile_seconds:.1f} s'.format(
      **ours
    )
  )
  lines += [
    f'time of ours / {name}: {shown(ratio, 2)}'
    for name, ratio in result['ratios'].items()
  ]
  if not any(name.startswith('PyTorch') for name in result['ratios']):
    lines.append('PyTorch takes no part: not asked, not installed, or no twin')
  lines.append(', '.join(f'{k} {v}' for k, v in result['versions'].items()))
  return '\n'.join(lines)


def starts(options: dict[str, Any]) -> dict[str, Any]:
  """Measures how long a training step takes to be there, and to be back.

  Args:
    options: Of `subjects.train`.

  Returns:
    The facts of the step's program, see `contest.run`: 'compile_seconds' and
    'compilations' of the first start; 'restore_seconds' of the second, whose
    program comes from the cache.
  """
  contender = Contender(f'{_OURS}:train', options)
  result = contest.run({'ours': contender}, rounds=1, steps=1)
  keys = ('compile_seconds', 'restore_seconds', 'compilations', 'device')
  found = {key: result['contenders']['ours'][key] for key in keys}
  return {'options': options, 'versions': versions(_PACKAGES), **found}


def table_of_starts(result: dict[str, Any]) -> str:
  """What `starts` returned, to be read."""
  options = ', '.join(f'{k} {v}' for k, v in result['options'].items())
  return (
    f'training step: {options}; {result["device"]}\n'
    + 'compiled {compilations} program(s) in {compile_seconds:.1f} s; from the '
    'cache in {restore_seconds:.1f} s\n'.format(**result)
    + ', '.join(f'{k} {v}' for k, v in result['versions'].items())
  )


def _opponents(
  what: str, options: dict[str, Any]
) -> Iterator[tuple[str, Contender]]:
  if importlib.util.find_spec('torch') is None:
    return
  if options.get('head', 'ema') not in _TORCH_HEADS:
    return
  if options.get('depth', 50) not in _TORCH_DEPTHS:
    return
  ways = [('contiguous', False), ('channels_last', False)]
  if has_gpu():
    ways = [('channels_last', False), ('channels_last', True)]
  for layout, compiled in ways:
    name = f'PyTorch {layout}' + (', compiled' if compiled else '')
    chosen = {**options, 'layout': layout, 'compiled': compiled}
    yield name, Contender(f'{_TORCH}:{what}', chosen)
