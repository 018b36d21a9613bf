"""The list of a user's own classes, with or without their colours in masks."""

import dataclasses
import itertools
import re

from emanet_jax.data.reading.files import File
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError, listed

_NUMBERED = re.compile(r'\d+\s*[\s,:;.)=]\s*\S.*')
_NOT_SCORED = ('ignore', 'ignored', 'void', '__ignore__')
_COLORED = re.compile(
  r'(.+?)[\s,:]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})\s*(:.*)?'
)

_IGNORED_VALUE = re.compile(
  rf'(?:{"|".join(_NOT_SCORED)})[\s,:]+(\d{{1,5}})\s*', re.IGNORECASE
)

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassList:
  """What the pixels of masks mean.

  Attributes:
    where: The list's place, for messages.
    names: Class names; the position is the label.
    colors: One (red, green, blue) a class; () where the list gives none.
    ignored: Colours of what is not scored.
    ignored_values: Of index masks, what is not scored, besides 255.
  """

  where: str
  names: tuple[str, ...]
  colors: tuple[Color, ...] = ()
  ignored: tuple[Color, ...] = ()
  ignored_values: tuple[int, ...] = ()

  @property
  def values(self) -> tuple[int, ...]:
    """What index masks hold for each class: 0, 1, … without the ignored."""
    free = (v for v in itertools.count() if v not in self.ignored_values)
    return tuple(itertools.islice(free, len(self.names)))

  @property
  def is_grey(self) -> bool:
    """Whether there are colours, and all of them are grey."""
    colors = (*self.colors, *self.ignored)
    return bool(colors) and all(len(set(color)) == 1 for color in colors)


def read_classes(file: File) -> ClassList:
  """Reads a list of classes, one a line, in the order of their labels.

  A line is `name` or `name r g b`, with blanks, commas or colons between and
  anything after a colon behind the colour, as in CVAT's `labelmap.txt`. A line
  `ignore r g b` (or ignored, void, __ignore__) names a colour that is not
  scored, and `ignore n` a value of index masks; classes have the other values,
  from 0, in their order. Empty lines and lines that begin with # do not count.

  Raises:
    UserError: The list contradicts itself or is too short or long.
  """
  names, colors, ignored, values = [], [], [], []
  for line in filter(None, map(str.strip, file.text().splitlines())):
    if line.startswith('#'):
      continue
    if match := _IGNORED_VALUE.fullmatch(line):
      values.append(int(match[1]))
      continue
    name, color = _parse(line)
    if name.lower() not in _NOT_SCORED:
      names.append(name)
      colors.append(color)
    elif color:
      ignored.append(color)
    elif name != '__ignore__':  # which labelme lists, and which has no index
      raise UserError(
        f'{file.where}: {name!r} has no colour and no value. Write it with '
        f'what masks hold there, "{name} 0" or "{name} 9 9 9"; or, as 255 is '
        'ignored anyway, delete the line (the lines below then count one '
        'less); or rename what is a class.'
      )
  if not any(colors) and not ignored:
    colors = []
  _check_classes(file.where, names, colors, ignored)
  parts = (tuple(part) for part in (names, colors, ignored, values))
  return ClassList(file.where, *parts)


def _parse(line: str) -> tuple[str, Color | None]:
  match = _COLORED.fullmatch(line)
  if match is None:
    return line.rstrip(': '), None  # labelmap.txt: 'name:::'
  name, red, green, blue, _ = match.groups()
  return name, (int(red), int(green), int(blue))


def _check_classes(
  where: str,
  names: list[str],
  colors: list[Color | None],
  ignored: list[Color],
) -> None:
  if names and all(map(_NUMBERED.fullmatch, names)):
    raise UserError(
      f'{where}: every line begins with a number ({listed(names)}). A class '
      'has the number of its line, from 0: delete the numbers, sort the lines '
      'by them, and name the classes of numbers that are left out as well.'
    )
  without = [n for n, c in zip(names, colors, strict=False) if c is None]
  given = [color for color in (*colors, *ignored) if color]
  faults = {
    'Give all classes a colour, or none; without one are': without,
    'A class is listed twice': _repeated(names),
    'Two lines have the same colour': _repeated(given),
    'Colours are 0..255, but these are not': [c for c in given if max(c) > 255],
  }
  for fault, entries in faults.items():
    if entries:
      raise UserError(f'{where}: {fault}: {listed(entries)}.')
  if not 2 <= len(names) <= IGNORE_LABEL:
    raise UserError(
      f'{where} names {len(names)} class(es); expected 2 to {IGNORE_LABEL}, '
      'one a line. What is no object is a class too, often background.'
    )


def _repeated(entries: list) -> list:
  return sorted({entry for entry in entries if entries.count(entry) > 1})
