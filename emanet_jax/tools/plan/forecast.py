"""From a compiled program to what it needs and how long it will take.

Compiled predictions: nothing is run. Times assume that the chip reaches its
vendor's figures, so a real step is slower.
"""

import collections
import dataclasses
from collections.abc import Callable

import jax

from emanet_jax.tools.plan import hlo
from emanet_jax.tools.plan.targets import Chip


@dataclasses.dataclass(frozen=True)
class Memory:
  """A program's memory on each device, in bytes.

  Attributes:
    arguments: State and batch.
    temporary: What it computes with, at its largest.
    results: That do not take the place of arguments.
    code: The program itself, where it lies in the device's memory.
  """

  arguments: int
  temporary: int
  results: int
  code: int

  @property
  def peak(self) -> int:
    """The most that is taken at a time."""
    return self.arguments + self.temporary + self.results + self.code


@dataclasses.dataclass(frozen=True)
class Forecast:
  """What a program needs of each device.

  Attributes:
    memory: Its share of the device's memory.
    flops: Operations.
    bytes: Read from and written to memory.
    estimate: Seconds, operation by operation, each at the chip's limit, without
      exchanges; the compiler's own where it has one.
    by_compiler: Whether flops, bytes and estimate are the compiler's.
    collectives: Exchanges with other devices.
    slowest: Layers and their share of `seconds_of` all operations, most first.
  """

  memory: Memory
  flops: float
  bytes: float
  estimate: float
  by_compiler: bool
  collectives: list[hlo.Collective]
  slowest: list[tuple[str, float]]

  @property
  def sent(self) -> float:
    """Bytes that a device sends to others."""
    return float(sum(one.sent for one in self.collectives))

  def exchange(self, chip: Chip) -> float:
    """Seconds that the device's link takes for that."""
    return self.sent / chip.link

  def bound(self, chip: Chip) -> float:
    """The roofline: seconds if work, traffic and exchanges all overlap.

    What stays in the chip's own memory between operations would save traffic.
    """
    return max(seconds_of(self, chip), self.exchange(chip))

  def seconds(self, chip: Chip) -> float:
    """The estimate and, as if nothing else were done meanwhile, exchanges."""
    return self.estimate + self.exchange(chip)


def seconds_of(work, chip: Chip) -> float:
  """What `flops` and `bytes` take at the chip's limits, whichever is longer."""
  return max(work.flops / chip.flops, work.bytes / chip.bandwidth)


def read_memory(compiled: jax.stages.Compiled) -> Memory:
  """What the compiler plans."""
  plan = compiled.memory_analysis()
  return Memory(
    plan.argument_size_in_bytes,
    plan.temp_size_in_bytes,
    plan.output_size_in_bytes - plan.alias_size_in_bytes,
    plan.generated_code_size_in_bytes,
  )


def forecast(
  compiled: jax.stages.Compiled, chip: Chip, num_devices: int
) -> Forecast:
  """Reads a program, compiled for so many chips."""
  program = hlo.read(compiled.as_text(), num_devices)
  costs = compiled.cost_analysis() or {}
  own = sum(one.times * seconds_of(one, chip) for one in program.operations)
  by_layer = collections.Counter()
  for one in program.operations:
    by_layer[one.name] += one.times * seconds_of(one, chip)
  return Forecast(
    read_memory(compiled),
    float(costs.get('flops', program.flops)),
    float(costs.get('bytes accessed', program.bytes)),
    float(costs.get('optimal_seconds', own)),
    'optimal_seconds' in costs,
    program.collectives,
    [
      (name, time / own if own else 0.0)
      for name, time in by_layer.most_common()
    ],
  )


def largest_fitting(
  peak: Callable[[int], int | float | None],
  capacity: float,
  first: int,
  most: int = 1024,
) -> int:
  """The largest number of images a device whose step fits; 0: not even one.

  Memory grows with the images nearly in a straight line: through two numbers
  that were compiled it says where the capacity is reached. What is returned was
  compiled, too, and fits. It may be too small: XLA plans some numbers better
  than others, and after four guesses there is no other.

  Args:
    peak: Of a step with so many images on a device, bytes; None: the compiler
      refuses it. Expensive: each number is asked for once.
    capacity: Of a device, bytes.
    first: Number to begin with.
    most: Larger numbers are not tried.
  """
  peaks = {}

  def fits(count: int) -> bool:
    if count not in peaks:
      peaks[count] = peak(count)
    return peaks[count] is not None and peaks[count] <= capacity

  low, high = first, most + 1
  while not fits(low):
    low, high = low // 2, low
    if not low:
      return 0
  if high > most and fits(min(2 * low, most)):
    low = min(2 * low, most)
  for _ in range(4):
    high = min([high, *(n for n in peaks if n > low)])
    guess = _where(peaks, low, high, capacity)
    if guess == low:
      break
    low = guess if fits(guess) else low
  return low


def _where(peaks, low, high, capacity) -> int:
  """Where a line reaches the capacity, from `low`, which fits, below `high`.

  It goes through the next numbers that were compiled: one of them above, since
  memory may grow faster there, else two below.
  """
  known = sorted(n for n in peaks if peaks[n] is not None)
  around = [n for n in known if n <= high][-2:]
  if len(around) < 2 or peaks.get(high, 0) is None:
    return (low + high) // 2  # nothing to draw a line to
  a, b = around
  slope = (peaks[b] - peaks[a]) / (b - a)
  if slope <= 0:
    return high - 1
  return min(max(a + int((capacity - peaks[a]) // slope), low), high - 1)
