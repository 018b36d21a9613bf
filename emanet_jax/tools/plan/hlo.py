"""What a compiled program does, read from its text (optimised HLO).

Every device runs the same program on its share: all figures are of one device.
A loop's body counts as often as the compiler says that it is run; of a
condition's branches each counts. Padding in memory is not known here.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from emanet_jax.tools.plan.instructions import (
  Instruction,
  bytes_of,
  called,
  parse,
  shape_of,
  within,
)

_COLLECTIVES = (
  *('all-gather', 'all-reduce', 'all-to-all', 'ragged-all-to-all'),
  *('collective-broadcast', 'collective-permute', 'reduce-scatter'),
)
# Neither read nor write memory, or only name what others do.
_FREE = (
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
  *('after-all', 'partition-id', 'replica-id', 'while', 'conditional', 'call'),
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """An exchange between devices.

  Attributes:
    kind: As 'all-reduce'.
    bytes: Of what is exchanged, whole, once: for an all-gather its result, for
      all others what a device puts in.
    group: Devices that take part together.
    times: How often a step does it.
  """

  kind: str
  bytes: int
  group: int
  times: int

  @property
  def sent(self) -> float:
    """Bytes that a device sends, at least, however the group is connected."""
    share = (self.group - 1) / self.group
    if self.kind == 'all-reduce':  # scattered, then gathered
      share *= 2
    if self.kind in ('collective-permute', 'collective-broadcast'):
      share = 1.0
    return self.times * share * self.bytes


@dataclasses.dataclass(frozen=True)
class Operation:
  """What the device does at a time: a fusion, or a call of a library.

  Attributes:
    name: Where in the network it comes from, else its own name.
    flops: Of its products and convolutions.
    bytes: Read and written.
    times: How often a step does it.
  """

  name: str
  flops: int
  bytes: int
  times: int


@dataclasses.dataclass(frozen=True)
class Program:
  """A program's exchanges, and what else takes time."""

  collectives: list[Collective]
  operations: list[Operation]

  @property
  def flops(self) -> int:
    """Of all products and convolutions of a step."""
    return sum(x.times * x.flops for x in self.operations)

  @property
  def bytes(self) -> int:
    """Read and written by all operations of a step."""
    return sum(x.times * x.bytes for x in self.operations)


def read(text: str, num_devices: int) -> Program:
  """Reads a program.

  Args:
    text: `compiled.as_text()`.
    num_devices: That run it.
  """
  computations, entry = parse(text)
  types = {i.name: i.type for c in computations.values() for i in c}
  collectives, operations = [], []
  for instruction, times in _executed(computations, entry):
    given = sum(bytes_of(types.get(name, '')) for name in instruction.operands)
    made = bytes_of(instruction.type)
    kind = instruction.opcode.removesuffix('-start')
    if kind in _COLLECTIVES:
      # What starts one has its operands in its result, too.
      whole = made - given * (instruction.opcode != kind)
      size = whole if kind == 'all-gather' else given
      group = _group(instruction.rest, num_devices)
      collectives.append(Collective(kind, size, group, times))
    else:
      parts = within(computations, instruction)
      flops = sum(_flops(part, types) for part in parts)
      name = _origin(instruction)
      operations.append(Operation(name, flops, given + made, times))
  return Program(collectives, operations)


def _executed(
  computations: dict[str, list[Instruction]], name: str, times: int = 1
) -> Iterator[tuple[Instruction, int]]:
  """What takes time, loops unrolled; collectives inside of fusions as well."""
  for instruction in computations.get(name, ()):
    opcode, rest = instruction.opcode, instruction.rest
    if opcode in ('while', 'conditional', 'call'):
      trips = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
      for inner in called(rest):
        yield from _executed(
          computations, inner, times * (int(trips[1]) if trips else 1)
        )
    elif opcode not in _FREE and not opcode.endswith(('-done', '-update')):
      exchanges = [
        part
        for part in within(computations, instruction)
        if part.opcode.removesuffix('-start') in _COLLECTIVES
      ]
      for one in exchanges or [instruction]:
        yield one, times


def _group(rest: str, num_devices: int) -> int:
  """Devices of a group, in each of the ways in which XLA writes them."""
  if found := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
    return len(found[1].split(','))
  if found := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
    return int(found[1])
  if found := re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', rest):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
    used = re.findall(r"'(\w+)'", found[2])
    return math.prod(int(sizes[name]) for name in used)
  return num_devices


def _flops(instruction: Instruction, types: dict[str, str]) -> int:
  """Two for each multiplication with its addition, as if nothing were padding.

  cuDNN's calls name x, kernel and y in other places for each gradient.
  """
  shapes = [shape_of(types.get(name, '')) for name in instruction.operands]
  made = shape_of(instruction.type)
  target = instruction.attribute(r'custom_call_target="([^"]+)"')
  if target.startswith('__cudnn$conv'):
    kernel = made if 'BackwardFilter' in target else shapes[1]
    y = shapes[1] if kernel is made else shapes[0]
    y = made if 'Forward' in target else y
    return 2 * math.prod(kernel) * math.prod(y[:3])
  if target.startswith('__cublas'):
    axes = instruction.attribute(r'lhs_contracting_dimensions":\[([^\]]*)')
  elif instruction.opcode == 'dot':
    axes = instruction.attribute(r'lhs_contracting_dims=\{([^}]*)\}')
  elif instruction.opcode == 'convolution':
    features = instruction.attribute(r'dim_labels=\w+_(\w+)->').index('o')
    apart = instruction.attribute(r'lhs_dilate=([\dx]+)')
    zeros = math.prod(int(n) for n in apart.split('x') if n)
    depth = math.prod(shapes[1]) // shapes[1][features]
    return 2 * math.prod(made) * depth // zeros
  else:
    return 0
  summed = math.prod(shapes[0][int(n)] for n in re.findall(r'\d+', axes))
  return 2 * math.prod(made) * summed


def _origin(instruction: Instruction) -> str:
  """The layer that an instruction comes from, and whether as its gradient."""
  name = instruction.attribute(r'op_name="([^"]*)"')
  parts = [
    part
    for part in name.split('/')[:-1]  # the last is what is computed there
    if not re.search(r'[().]|^(cond|branch_\d+_fun|while|body)$', part)
  ]
  gradient = ' (gradient)' if 'transpose(' in name else ''
  return ('/'.join(parts) or 'of no layer') + gradient
