"""How time and memory grow with the size of the problem.

EM attention relates N pixels to K bases, T times: O(NKT). Plain non-local
attention relates them to each other: O(N²). Both are taken without the
convolutions around them. Beside them stand the whole EM attention unit and the
whole network, whose convolutions are O(N) too.

Each point is a compiled forward pass of one image. How much XLA plans to hold
for it is known without running it; what does not fit is left out of the times.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from emanet_jax.models import flops
from emanet_jax.runtime import startup
from emanet_jax.tools.benchmark import subjects
from emanet_jax.tools.benchmark.scaling_subjects import Work, curves
from emanet_jax.tools.benchmark.summary import spread, versions

BASES = (16, 32, 64, 128, 256, 512)
STAGES = (1, 2, 4, 8)

_TURN = 0.05  # seconds at least: what is shorter is repeated
_SPENT = 20.0  # seconds on a point, after which it has no more turns
_SLOW = 60.0  # seconds a pass from which on a point is left out
# Of the free memory that a point on a CPU may plan with: the process may hold
# twice as much, see `startup.keep_freed_memory`.
_HOST_SHARE = 0.4


def measure(
  config: ml_collections.ConfigDict,
  *,
  sides: Sequence[int],
  channels: Sequence[int],
  bases: Sequence[int] = BASES,
  stages: Sequence[int] = STAGES,
  rounds: int = 7,
) -> dict[str, Any]:
  """Measures curves of time and planned memory.

  Args:
    config: The `model` part of a configuration: the whole network.
    sides: Of square features, in pixels, rising: N is their square. K and T are
      varied on the second of them, the whole network's on the first.
    channels: C, of the features.
    bases: K, rising.
    stages: T, rising.
    rounds: In which all points take a turn, but those that had 20 s already.

  Returns:
    As JSON holds it: 'device', 'machine', 'dtype', 'versions' and 'curves', a
    list of 'subject', 'channels', 'over' ('N', 'K' or 'T'), 'points' and
    'slopes'. A point has its 'value' on that axis, 'flops' by count,
    'planned_bytes', 'trial_seconds' of its first pass, and 'seconds', [median,
    least, most] of its 'turns'; or None, and why it was 'left_out', as those
    above it then are. Slopes are the powers of the value that these grow with:
    least squares on logarithms.
  """
  startup.keep_freed_memory()
  works = curves(config, sides, channels, bases, stages)
  room = _room()
  found, tried = [], []
  for curve in works:
    name = f'{curve.subject}, C = {curve.channels}'
    logging.info('compiling %s over %s', name, curve.over)
    points = []
    for value, work in curve.works.items():
      point, run = _try(work, points, room)
      points.append({'value': value, **point})
      if run is None:
        break
      tried.append((points[-1], run, work))
    keys = {'subject': curve.subject, 'channels': curve.channels}
    found.append({**keys, 'over': curve.over, 'points': points})
  _take_turns(tried, rounds)
  for curve in found:
    measures = ('seconds', 'planned_bytes', 'flops')
    curve['slopes'] = {name: _slope(curve, name) for name in measures}
  return {
    'device': jax.devices()[0].device_kind,
    'machine': f'{platform.machine()}, {os.cpu_count()} CPUs',
    'dtype': {'attention': 'float32', 'network': config.dtype},
    'versions': versions(('jax', 'jaxlib', 'flax', 'numpy')),
    'curves': found,
  }


def table(result: dict[str, Any]) -> str:
  """What `measure` returned, to be read: the ends of each curve, its slopes."""
  dtypes = (f'{part} in {name}' for part, name in result['dtype'].items())
  lines = [
    f'forward pass of one image, {result["device"]} ({result["machine"]}), '
    + ', '.join(dtypes),
    f'{"":32}{"from … to":>16}{"seconds":>18}{"GB":>16}'
    '   power of time, memory, FLOPs',
  ]
  for curve in result['curves']:
    points = [point for point in curve['points'] if point['seconds']]
    ends = [points[0], points[-1]] if points else []
    name = f'{curve["subject"]}, C = {curve["channels"]}, {curve["over"]}'
    line = name.ljust(32)
    line += ' … '.join(str(p['value']) for p in ends).rjust(16)
    line += ' … '.join(f'{p["seconds"][0]:.3g}' for p in ends).rjust(18)
    line += ' … '.join(_gigabytes(p) for p in ends).rjust(16)
    for slope in curve['slopes'].values():
      line += '-'.rjust(9) if slope is None else f'{slope:9.2f}'
    lines.append(line)
    last = curve['points'][-1]
    if last['left_out']:
      lines.append(f'  {last["value"]} {last["left_out"]}')
  lines.append(', '.join(f'{k} {v}' for k, v in result['versions'].items()))
  return '\n'.join(lines)


def _try(
  work: Work, smaller: Sequence[dict[str, Any]], room: float
) -> tuple[dict[str, Any], Callable | None]:
  """A point, and its compiled function if it can be run: it was, once."""
  counted = flops.count(work.function, work.variables, work.x)
  point = {'flops': counted, 'planned_bytes': None, 'seconds': None}
  try:
    run = jax.jit(work.function).lower(work.variables, work.x).compile()
    point['planned_bytes'] = subjects.planned_bytes(run)
    if point['planned_bytes'] > room:
      need = f'does not fit: {_gigabytes(point)} GB'
      return {**point, 'left_out': need}, None
    if smaller:
      last = smaller[-1]
      expected = last['trial_seconds'] * counted / last['flops']
      if expected > _SLOW:
        return {**point, 'left_out': f'would take {expected:.0f} s'}, None
    (first,) = _turn(run, work, 1)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {**point, 'left_out': 'does not fit'}, None
  return {**point, 'left_out': None, 'trial_seconds': first}, run


def _take_turns(
  tried: Sequence[tuple[dict[str, Any], Callable, Work]], rounds: int
) -> None:
  """Writes its 'seconds' and 'turns' into each point."""
  spent = [point['trial_seconds'] for point, _, _ in tried]
  medians: list[list[float]] = [[] for _ in tried]
  for i in range(rounds):
    logging.info('round %d/%d', i + 1, rounds)
    for j, (point, run, work) in enumerate(tried):
      if medians[j] and spent[j] > _SPENT:
        continue
      first = point['trial_seconds']
      count = max(3, int(_TURN / first)) if first < 0.5 else 1
      seconds = _turn(run, work, count)
      spent[j] += sum(seconds)
      medians[j].append(statistics.median(seconds))
  for (point, _, _), seconds in zip(tried, medians, strict=True):
    point |= {'seconds': spread(seconds), 'turns': len(seconds)}


def _turn(run: Callable, work: Work, count: int) -> list[float]:
  """Seconds of passes, each waited for."""
  values = np.random.default_rng(0).standard_normal(2**16, np.float32)
  x = jax.device_put(np.resize(values, work.x.shape))
  jax.block_until_ready(x)
  seconds = []
  for _ in range(count):
    start = time.perf_counter()
    jax.block_until_ready(run(work.variables, x))
    seconds.append(time.perf_counter() - start)
  return seconds


def _room() -> float:
  """Bytes of memory that a point may take."""
  device = jax.devices()[0]
  if device.platform != 'cpu':
    stats = device.memory_stats()
    return stats['bytes_limit'] - stats['bytes_in_use']
  free = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  memory, limit = Path('/proc/meminfo'), Path('/sys/fs/cgroup/memory.max')
  if memory.exists():
    _, _, rest = memory.read_text().partition('MemAvailable:')
    free = int(rest.split()[0]) * 1024
  if limit.exists() and limit.read_text().strip() != 'max':  # a container's
    free = min(free, int(limit.read_text()))
  return _HOST_SHARE * free


def _gigabytes(point: dict[str, Any]) -> str:
  return f'{point["planned_bytes"] / 1e9:.3g}'


def _slope(curve: dict[str, Any], measure: str) -> float | None:
  """The power of the value that a measure grows with; None of one point."""
  points = [point for point in curve['points'] if point['seconds']]
  if len(points) < 2:
    return None
  found = [point[measure] for point in points]
  if measure == 'seconds':
    found = [median for median, _, _ in found]
  values = np.log([point['value'] for point in points])
  return float(np.polyfit(values, np.log(found), 1)[0])
