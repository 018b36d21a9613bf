"""Imports point down only, and importing does nothing else."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = 'emanet_jax'

# From the ground up: a room imports from itself and from the floors below it,
# never from its neighbours. The longest name that fits is a module's room.
FLOORS = (
  ('array', 'errors'),
  ('parts',),
  ('config',),
  ('config_flag',),
  ('runtime',),
  ('data.spec',),
  ('data.prepared',),
  ('data.reading',),
  ('data.datasets',),
  ('data.preparation',),
  ('data.input', 'models'),
  ('visualization', 'inference', 'state'),
  ('evaluation',),
  ('training', 'prediction'),
  ('main',),
  ('tools',),
)
FOREIGN = {'torch', 'torchvision', 'tensorflow', 'keras'}
SOURCES = {
  '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts): path
  for path in sorted((REPOSITORY / PACKAGE).rglob('*.py'))
}


def imported(name: str, source: str) -> tuple[set[str], set[str]]:
  """Names imported anywhere in a module, and those at its top level."""
  tree = ast.parse(source)
  inner = {
    id(node)
    for function in ast.walk(tree)
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    for node in ast.walk(function)
  }
  everywhere, top = set(), set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        parent = name.split('.')[: -node.level]
        base = '.'.join([*parent, *([node.module] if node.module else [])])
      names = [f'{base}.{alias.name}' for alias in node.names]
    else:
      continue
    everywhere.update(names)
    if id(node) not in inner:
      top.update(names)
  return everywhere, top


def module_of(name: str) -> str | None:
  """The package's module that an imported name is or lies in."""
  while name.startswith(PACKAGE):
    if name in SOURCES:
      return name
    if f'{name}.__init__' in SOURCES:
      return f'{name}.__init__'
    name = name.rpartition('.')[0]
  return None


def room(module: str) -> str | None:
  """The name in FLOORS that a module belongs to; None if there is none."""
  parts = module.split('.')[1:]
  names = {name for names in FLOORS for name in names}
  for length in (2, 1):
    if (name := '.'.join(parts[:length])) in names:
      return name
  return None


def tool(module: str) -> str:
  """The program that a module belongs to, which may be a folder."""
  return '.'.join(module.split('.')[:3])


def opponent(module: str) -> bool:
  """Whether it is PyTorch's side of a benchmark, only imported to run it."""
  return module.removeprefix(f'{PACKAGE}.tools.benchmark.') in (
    'torch_heads',
    'torch_layers',
    'torch_network',
    'torch_subjects',
  )


def floor(module: str) -> int | None:
  """Its number, from 0; None for a module that FLOORS does not know."""
  return next(
    (i for i, names in enumerate(FLOORS) if room(module) in names), None
  )


def violations(name: str, source: str) -> list[str]:
  """What is wrong with a module's imports, in words."""
  if name in (f'{PACKAGE}.__init__', f'{PACKAGE}.data.__init__'):
    return [f'{name} imports {x}' for x in sorted(imported(name, source)[0])]
  if floor(name) is None:
    return [f'{name} has no floor: add it to FLOORS, as low as can be']
  everywhere, top = imported(name, source)
  found = [
    f'{name} imports {other} at module level'
    for other in sorted(top)
    if other.split('.')[0] in FOREIGN and not opponent(name)
  ]
  found += [
    f'{name} imports {other} at module level'
    for other in sorted(top)
    if opponent(other) and not opponent(name)
  ]
  for target in sorted({module_of(x) for x in everywhere} - {None, name}):
    if room(target) is None:  # the door of the package, or of data
      continue
    rooms = {room(name).split('.')[0], room(target).split('.')[0]}
    if room(target) == 'tools' and tool(target) != tool(name):
      found.append(f'{name} imports {target}; tools are leaves')
    elif rooms == {'models', 'data'}:
      found.append(f'{name} imports {target}; neither may know the other')
    elif floor(target) > floor(name):
      found.append(f'{name} imports {target}, which lies above it')
    elif floor(target) == floor(name) and room(target) != room(name):
      found.append(f'{name} imports {target}, which lies beside it')
  return found


@pytest.mark.parametrize('name', SOURCES)
def test_imports_point_down(name):
  assert violations(name, SOURCES[name].read_text()) == []


def test_no_circle():
  graph = {
    name: {module_of(x) for x in imported(name, path.read_text())[0]}
    - {None, name, f'{PACKAGE}.__init__'}
    for name, path in SOURCES.items()
  }
  order = list(graphlib.TopologicalSorter(graph).static_order())
  assert order.index(f'{PACKAGE}.errors') < order.index(f'{PACKAGE}.main')
  assert len(order) == len(SOURCES)


@pytest.mark.parametrize(
  ('name', 'source', 'complaint'),
  [
    (
      'state.new',
      'from emanet_jax.training import train',
      'train, which lies above',
    ),
    ('inference.new', 'import emanet_jax.evaluation.report as r', 'lies above'),
    (
      'runtime.new',
      'def f():\n  from ..inference import views',
      'lies above',
    ),
    (
      'training.new',
      'from emanet_jax.prediction.photos import Photo',
      'lies beside',
    ),
    (
      'data.datasets.new',
      'from emanet_jax.data.preparation import prepare',
      'lies above',
    ),
    ('models.new', 'from ..data.spec import DatasetSpec', 'know the other'),
    ('data.spec', 'from emanet_jax.models import layers', 'know the other'),
    ('main', 'from emanet_jax.tools import convert_torch', 'are leaves'),
    ('tools.new', 'import emanet_jax.tools.convert_torch', 'are leaves'),
    ('data.spec', 'import torch.nn as nn', 'torch.nn at module level'),
    (
      'tools.benchmark.new',
      'from emanet_jax.tools.benchmark import torch_network',
      'at module level',
    ),
    ('models.new', 'if True:\n  from tensorflow import io', 'at module level'),
    ('attic', 'import os', 'has no floor'),
    ('__init__', 'import jax', 'imports jax'),
  ],
)
def test_an_arrow_upward_is_noticed(name, source, complaint):
  (found,) = violations(f'{PACKAGE}.{name}', source)
  assert complaint in found


@pytest.mark.parametrize(
  ('name', 'source'),
  [
    (
      'training.new',
      'from emanet_jax.models.segmenter import create_model',
    ),
    ('training.new', 'from emanet_jax.evaluation import evaluate, report'),
    (
      'tools.new',
      'def f():\n  import torch\n  from emanet_jax.training import train',
    ),
    (
      'data.reading.new',
      'import tensorflow_datasets as tfds\nfrom . import files',
    ),
    ('models.new', 'from emanet_jax.errors import UserError'),
  ],
)
def test_an_arrow_downward_is_not(name, source):
  assert violations(f'{PACKAGE}.{name}', source) == []


def test_importing_the_program_does_no_work():
  program = (
    'import sys, emanet_jax.main\n'
    'from jax._src import xla_bridge\n'
    'print("backends", len(xla_bridge._backends))\n'
    f'print("foreign", sorted({FOREIGN} & set(sys.modules)))\n'
    'import jax; jax.devices()\n'  # The count is not always 0.
    'print("after", len(xla_bridge._backends))\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', program],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  lines = result.stdout.splitlines()
  assert lines[:2] == ['backends 0', 'foreign []']
  assert lines[2].startswith('after ')
  assert lines[2] != 'after 0'
  assert result.stderr == ''
