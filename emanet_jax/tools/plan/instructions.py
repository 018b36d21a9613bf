"""The text of a compiled program (optimised HLO), taken apart."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BYTES = {'pred': 1, 's4': 0.5, 'u4': 0.5, 'token': 0, 'opaque': 0}
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(')
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.-]+) \(.*\{$')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """A line of a program.

  Attributes:
    name: By which others name it.
    type: Of what it makes, as 'bf16[8,32]{1,0}'; of several in brackets.
    opcode: As 'fusion'.
    operands: Names of what it takes.
    rest: All that follows, its attributes.
  """

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  rest: str

  def attribute(self, pattern: str) -> str:
    """What the pattern's group finds among the attributes, '' for nothing."""
    found = re.search(pattern, self.rest)
    return found[1] if found else ''


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """A program's computations by name, and the name of that which is run."""
  computations, entry, body = {}, '', []
  for line in text.splitlines():
    if head := _COMPUTATION.match(line):
      body = computations[head[2]] = []
      entry = head[2] if head[1] else entry
    elif found := _INSTRUCTION.match(line):
      name, kind, opcode = found.groups()
      operands, rest = _parted(line[found.end() :])
      names = tuple(re.findall(r'%([\w.-]+)', operands))
      body.append(Instruction(name, kind, opcode, names, rest))
  return computations, entry


def _parted(text: str) -> tuple[str, str]:
  """What stands before the bracket that closes, and after it."""
  depth = 1
  for i, character in enumerate(text):
    depth += (character == '(') - (character == ')')
    if not depth:
      return text[:i], text[i + 1 :]
  return text, ''


def within(
  computations: dict[str, list[Instruction]], instruction: Instruction
) -> Iterator[Instruction]:
  """An instruction, and those that it consists of."""
  yield instruction
  if instruction.opcode == 'fusion' or instruction.opcode.startswith('async'):
    for name in called(instruction.rest):
      for inner in computations.get(name, ()):
        yield from within(computations, inner)


def called(rest: str) -> list[str]:
  """Names of the computations that an instruction runs."""
  found = re.findall(r'\b(?:calls|body|to_apply)=%?([\w.-]+)', rest)
  for names in re.findall(r'branch_computations=\{([^}]*)\}', rest):
    found += re.findall(r'[\w.-]+', names)
  found += re.findall(r'(?:true|false)_computation=%?([\w.-]+)', rest)
  return found


def bytes_of(kind: str) -> int:
  """Bytes of the arrays of a type."""
  return sum(
    math.ceil(_bytes(dtype) * math.prod(shape))
    for dtype, shape in _arrays(kind)
  )


def _bytes(dtype: str) -> float:
  if dtype in _BYTES:
    return _BYTES[dtype]
  bits = re.search(r'\d+', dtype)
  return int(bits[0]) / 8 if bits else 0


def _arrays(kind: str) -> list[tuple[str, list[int]]]:
  return [
    (dtype, [int(n) for n in shape.split(',') if n])
    for dtype, shape in _ARRAY.findall(kind)
  ]


def shape_of(kind: str) -> list[int]:
  """Of a type's first array."""
  found = _arrays(kind)
  return found[0][1] if found else []
