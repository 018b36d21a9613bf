"""How time and memory grow with the size of the problem.

EM attention relates N pixels to K bases, T times: O(NKT). Non-local attention,
here JAX's own dot-product attention, relates them to each other: O(N²). Both
are taken without the convolutions around them. Beside them stand the whole EM
attention unit and the whole network, whose convolutions are O(N) too.

Each point is a compiled forward pass of one image. How much XLA plans to hold
for it is known without running it; what does not fit is left out of the times.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from emanet_jax.models.em_attention import em_attention
from emanet_jax.models.ema_unit import EMAUnit
from emanet_jax.models.segmenter import Segmenter
from emanet_jax.tools.benchmark import flops, subjects
from emanet_jax.tools.benchmark.summary import spread, versions

BASES = (16, 32, 64, 128, 256, 512)
STAGES = (1, 2, 4, 8)
MEASURES = ('seconds', 'planned_bytes', 'flops')

_LEAST_SECONDS = 0.02  # of a turn: what is shorter is repeated
_MOST_SECONDS = 20.0  # of all turns of a point: a slow one has fewer
_HOST_SHARE = 0.6  # of the machine's memory that a point may plan with


@dataclasses.dataclass(frozen=True)
class _Work:
  """A forward pass: a function of variables and of features or an image."""

  function: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  x: jax.ShapeDtypeStruct


def measure(
  model: Segmenter,
  *,
  sides: Sequence[int],
  channels: Sequence[int],
  bases: Sequence[int] = BASES,
  stages: Sequence[int] = STAGES,
  rounds: int = 7,
) -> dict[str, Any]:
  """Measures curves of time and planned memory.

  Args:
    model: The whole network.
    sides: Of square features, in pixels, rising: N is their square. K and T are
      varied on the first.
    channels: C, of the features; the unit has the first of them.
    bases: K.
    stages: T.
    rounds: In which all points take a turn, but those that had 20 s already.

  Returns:
    As JSON holds it: 'device', 'dtype', 'versions', and 'curves', a list of
    'name', 'over' ('N', 'K' or 'T'), 'points' and 'slopes'. A point has its
    'value' on that axis, 'flops' by count, 'planned_bytes', and 'seconds',
    [median, least, most], or None where it does not fit; larger ones are not
    tried then. Slopes are the powers of the value that these grow with: least
    squares on logarithms.
  """
  curves, runs = [], []
  for name, over, works in _curves(model, sides, channels, bases, stages):
    logging.info('compiling %s over %s', name, over)
    points = []
    for value, work in works.items():
      run, planned = _compile(work)
      counted = flops.count(work.function, work.variables, work.x)
      point = {'value': value, 'flops': counted, 'planned_bytes': planned}
      points.append({**point, 'seconds': None})
      if run is None:
        break
      runs.append((points[-1], run, work, []))
    curves.append({'name': name, 'over': over, 'points': points})
  for i in range(rounds):
    logging.info('round %d/%d', i + 1, rounds)
    for _, run, work, seconds in runs:
      if sum(seconds) < _MOST_SECONDS:
        seconds.append(_turn(run, work))
  for point, _, _, seconds in runs:
    point['seconds'] = spread(seconds)
  for curve in curves:
    curve['slopes'] = {name: _slope(curve, name) for name in MEASURES}
  return {
    'device': jax.devices()[0].device_kind,
    'dtype': {'attention': 'float32', 'network': model.dtype},
    'versions': versions(('jax', 'jaxlib', 'flax', 'numpy')),
    'curves': curves,
  }


def table(result: dict[str, Any]) -> str:
  """What `measure` returned, to be read: the ends of each curve, its slopes."""
  dtypes = (f'{part} in {name}' for part, name in result['dtype'].items())
  lines = [
    f'forward pass of one image, {result["device"]}, {", ".join(dtypes)}',
    f'{"":37}{"from … to":>16}{"seconds":>20}{"GB":>15}'
    '   power of time, memory, FLOPs',
  ]
  for curve in result['curves']:
    points = [point for point in curve['points'] if point['seconds']]
    ends = [points[0], points[-1]] if points else []
    line = f'{curve["name"]}, {curve["over"]}'.ljust(37)
    line += ' … '.join(str(p['value']) for p in ends).rjust(16)
    line += ' … '.join(f'{p["seconds"][0]:.4f}' for p in ends).rjust(20)
    line += ' … '.join(_gigabytes(p) for p in ends).rjust(15)
    for slope in curve['slopes'].values():
      line += '-'.rjust(9) if slope is None else f'{slope:9.2f}'
    lines.append(line)
    left_out = curve['points'][-1]
    if left_out['seconds'] is None:
      lines.append(
        f'  {left_out["value"]} does not fit: {_gigabytes(left_out)} GB'
      )
  lines.append(', '.join(f'{k} {v}' for k, v in result['versions'].items()))
  return '\n'.join(lines)


def _gigabytes(point: dict[str, Any]) -> str:
  planned = point['planned_bytes']
  return '?' if planned is None else f'{planned / 1e9:.2f}'


def _curves(
  model, sides, channels, bases, stages
) -> list[tuple[str, str, dict[int, _Work]]]:
  """Of each curve its name, its axis, and the work at each value on it."""
  curves = []
  for c in channels:
    name = f'EM attention, C = {c}'
    first = sides[0]
    curves += [
      (name, 'N', {s * s: _em_attention(s, c) for s in sides}),
      (name, 'K', {k: _em_attention(first, c, bases=k) for k in bases}),
      (name, 'T', {t: _em_attention(first, c, stages=t) for t in stages}),
    ]
  for c in channels:
    name = f'non-local attention, C = {c}'
    curves.append((name, 'N', {s * s: _non_local(s, c) for s in sides}))
  name = f'EM attention unit, C = {channels[0]}'
  curves.append((name, 'N', {s * s: _unit(s, channels[0]) for s in sides}))
  variables = subjects.draw_variables(model)
  whole = {s * s: _network(s, model, variables) for s in sides}
  return [*curves, ('whole network', 'N', whole)]


def _em_attention(side, channels, bases=64, stages=3) -> _Work:
  def function(mu, x):
    return em_attention(x, mu, num_stages=stages)[0]

  x = _shape(1, side * side, channels)
  return _Work(function, subjects.normal((1, bases, channels)), x)


def _non_local(side, channels) -> _Work:
  def function(_, x):
    x = x[:, :, None]  # one head
    with jax.default_matmul_precision('highest'):
      return jax.nn.dot_product_attention(x, x, x)

  return _Work(function, (), _shape(1, side * side, channels))


def _unit(side, channels) -> _Work:
  unit, x = EMAUnit(), _shape(1, side, side, channels)
  init = functools.partial(unit.init, train=False)
  variables = subjects.draw(jax.eval_shape(init, jax.random.key(0), x))
  return _Work(functools.partial(unit.apply, train=False), variables, x)


def _network(side, model, variables) -> _Work:
  image = (side - 1) * model.output_stride + 1
  return _Work(model.apply, variables, _shape(1, image, image, 3))


def _shape(*shape) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, np.float32)


def _compile(work: _Work) -> tuple[Callable | None, int | None]:
  """The compiled function, None if it will not fit; and its bytes, if known."""
  lowered = jax.jit(work.function).lower(work.variables, work.x)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:  # compilers try things out
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return None, None
  memory = compiled.memory_analysis()
  planned = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return (compiled if planned <= _room() else None), planned


def _room() -> float:
  """Bytes of memory that a point may take."""
  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.memory_stats()['bytes_limit']
  pages = os.sysconf('SC_PHYS_PAGES')
  return _HOST_SHARE * pages * os.sysconf('SC_PAGE_SIZE')


def _turn(run: Callable, work: _Work) -> float:
  """Seconds of a pass, after one that is not counted."""
  values = subjects.normal((2**16,))
  x = jax.device_put(np.resize(values, work.x.shape))

  def passes(count):
    start = time.perf_counter()
    for _ in range(count):
      y = run(work.variables, x)
    jax.block_until_ready(y)
    return time.perf_counter() - start

  count = 1 + int(_LEAST_SECONDS / passes(1))
  return passes(count) / count


def _slope(curve: dict[str, Any], measure: str) -> float | None:
  """The power of the value that the median grows with; None of one point."""
  points = [point for point in curve['points'] if point['seconds']]
  if len(points) < 2:
    return None
  found = [point[measure] for point in points]
  if measure == 'seconds':
    found = [median for median, _, _ in found]
  values = np.log([point['value'] for point in points])
  return float(np.polyfit(values, np.log(found), 1)[0])
