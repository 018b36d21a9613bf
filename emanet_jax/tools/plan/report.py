"""Forecasts in words."""

import dataclasses

from emanet_jax.evaluation.plan import Plan
from emanet_jax.tools.plan.forecast import Forecast, Memory
from emanet_jax.tools.plan.targets import Chip, Target

_LAYERS = 8  # of the slowest


def head(target: Target) -> str:
  """What the figures are, and of which machine."""
  chip = target.chip
  lines = [
    f'{target.text}: {target.size} × {chip.name}',
    'Compiled prediction: nothing was run. Figures are those of each device.',
  ]
  if chip.source:
    lines.append(
      f'{chip.flops / 1e12:.0f} TFLOP/s bfloat16, '
      f'{chip.bandwidth / 1e9:.0f} GB/s memory, '
      f'{chip.link / 1e9:.0f} GB/s to others, '
      f'{chip.memory / 1e9:.1f} GB for programs ({chip.source})'
    )
  return '\n'.join(lines)


def memory(needed: Memory, chip: Chip) -> str:
  """How a program's memory is divided, and whether it fits."""
  parts = {
    'arguments': needed.arguments,
    'temporaries': needed.temporary,
    'results': needed.results,
    'program': needed.code,
  }
  told = ', '.join(f'{k} {v / 1e6:,.0f}' for k, v in parts.items())
  return f'{needed.peak / 1e6:,.0f} MB ({told}): {fits(needed.peak, chip)}'


def fits(peak: int, chip: Chip) -> str:
  """Whether so many bytes fit."""
  if not chip.source:
    return 'as much as the machine has'
  share = f'{peak / chip.memory:.0%} of {chip.memory / 1e9:.1f} GB'
  return f'fits, {share}' if peak <= chip.memory else f'does NOT fit, {share}'


def step(
  found: Forecast | None, chip: Chip, *, batch: int, steps: int, shares: int
) -> str:
  """What a training step needs and takes; None: the compiler refuses it."""
  title = f'training step, {batch} images, {batch // shares} a device'
  if not found:
    return f'{title}: does NOT fit, says the compiler'
  lines = [
    title,
    f'  memory       {memory(found.memory, chip)}',
    f'  products     {found.flops / 1e9:,.1f} GFLOP',
    f'  traffic      {found.bytes / 1e6:,.0f} MB read and written',
    f'  collectives  {collectives(found)}',
  ]
  if chip.source:
    lines += _times(found, chip, batch, steps)
    lines += ["  slowest layers, in shares of the operations' time"]
    lines += [f'    {x:6.1%}  {name}' for name, x in found.slowest[:_LAYERS]]
  return '\n'.join(lines)


def evaluation(
  plan: Plan, held: int, found: Memory, chip: Chip, whence: str
) -> str:
  """What the evaluation of the largest images needs beside the state.

  Args:
    plan: The batches.
    held: Bytes that a device holds meanwhile: training state and variables.
    found: The evaluation's memory.
    chip: The device.
    whence: Where the images' sizes are from.
  """
  both = dataclasses.replace(found, arguments=held)
  return '\n'.join(
    [
      f'evaluation ({whence})',
      f'  {plan}',
      f'  memory       {memory(both, chip)}',
    ]
  )


def collectives(found: Forecast) -> str:
  """How many there are of each kind, and of how many bytes."""
  kinds = sorted({one.kind for one in found.collectives})
  told = []
  for kind in kinds:
    own = [one for one in found.collectives if one.kind == kind]
    count = sum(one.times for one in own)
    size = sum(one.times * one.bytes for one in own)
    told.append(f'{count} {kind} of {size / 1e6:,.2f} MB in all')
  return ', '.join(told) or 'none'


def _times(found, chip, batch, steps):
  seconds, bound = found.seconds(chip), found.bound(chip)
  whose = "the compiler's" if found.by_compiler else 'ours'
  parts = {
    'products': found.flops / chip.flops,
    'memory': found.bytes / chip.bandwidth,
    'exchanges': found.exchange(chip),
  }
  told = ', '.join(f'{name} {1e3 * x:.1f}' for name, x in parts.items())
  return [
    f'  roofline     {1e3 * bound:.1f} ms: {told}',
    f'  estimate     {1e3 * seconds:.1f} ms: {1e3 * found.estimate:.1f} '
    f'operation by operation ({whose}), then the exchanges',
    f'  predicted    {batch / seconds:.0f} images/s ({batch / bound:.0f} by '
    f'the roofline); {steps} steps in {hours(steps * seconds)}',
  ]


def hours(seconds: float) -> str:
  """A run's time, without its start, evaluations and waiting for data."""
  return f'{seconds / 3600:.2g} hours' if seconds >= 60 else f'{seconds:.0f} s'


def largest_batch(found: Forecast, chip: Chip, batch: int) -> str:
  """What a step of the most images needs and takes."""
  return (
    f'largest batch: {batch} images, compiled: '
    f'{found.memory.peak / 1e6:,.0f} MB, '
    f'{batch / found.seconds(chip):.0f} images/s predicted'
  )
