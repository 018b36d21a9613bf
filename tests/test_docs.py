"""What the pages show is so: commands parse, paths exist, code runs."""

import ast
import json
import pathlib
import re
import shlex
import textwrap

import pytest

from tests.programs import run_python
from tests.test_imports import FLOORS

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / 'emanet_jax'
PAGES = {
  str(path.relative_to(REPOSITORY)): path.read_text()
  for path in (
    REPOSITORY / 'README.md',
    REPOSITORY / 'CONTRIBUTING.md',
    *sorted((REPOSITORY / 'docs').glob('*.md')),
  )
}
BOOKS = {
  f'configs/{path.name}': ast.get_docstring(ast.parse(path.read_text()))
  for path in sorted((REPOSITORY / 'configs').glob('[a-z]*.py'))
}
# Commands that are no program of ours. The programs' are parsed.
KNOWN = [
  shlex.split(line)
  for line in (
    'python3 -m venv .venv',
    '. .venv/bin/activate',
    'pip install -r requirements.txt',
    'pip install -U "jax[cuda13]"',
    'pip install -U "jax[tpu]"',
    'pip install .',
    'pip install gcsfs',
    'pip install ".[plan]"',
    'pip install torch',
    'python -m pytest',
    'python -m pytest -m slow',
    'ruff format --check .',
    'ruff check .',
  )
]


def blocks(page: str, language: str) -> list[str]:
  """The code blocks of a page in a language."""
  return re.findall(rf'^```{language}\n(.*?)^```$', page, re.M | re.S)


def spans(page: str) -> list[str]:
  """What stands in backticks outside of blocks, its lines joined."""
  prose = re.sub(r'^```.*?^```$', '', page, flags=re.M | re.S)
  return [' '.join(s.split()) for s in re.findall(r'`([^`]+)`', prose)]


def commands(script: str) -> list[list[str]]:
  """The words of each command of a script."""
  lines = script.replace('\\\n', ' ').splitlines()
  found = [shlex.split(line, comments=True) for line in lines]
  parted = [
    ' '.join(map(shlex.quote, words)).split(" '&&' ") for words in found
  ]
  return [shlex.split(part) for parts in parted for part in parts if part]


def shown_commands() -> list[tuple[str, list[str]]]:
  """Page and words of all commands: in blocks, prose and run books."""
  found = []
  for name, page in PAGES.items():
    # tests/launch executes the commands of launching.
    scripts = [] if name == 'docs/launching.md' else blocks(page, 'sh')
    scripts += [s for s in spans(page) if s.startswith(('python ', 'pip '))]
    # Flags alone, and keys with a value, are those of a training.
    given = [s for s in spans(page) if re.match(r'--config\.\S+=', s)]
    given += [
      f'--config.{s}'
      for s in spans(page)
      if re.fullmatch(r'[a-z.]+\.\w+=\S+', s)
    ]
    train = 'python -m emanet_jax.main --config configs/voc.py --workdir W'
    scripts += [f'{train} {flags}' for flags in given]
    found += [(name, c) for script in scripts for c in commands(script)]
  for name, text in BOOKS.items():
    indented = re.findall(r'^(?:  .*\n?)+', text, re.M)
    scripts = map(textwrap.dedent, indented)
    found += [
      (name, c)
      for script in scripts
      if script.startswith('python ')
      for c in commands(script)
    ]
  return found


COMMANDS = shown_commands()


@pytest.fixture(scope='session')
def wrong():
  """What is wrong, by what is shown: '' for nothing."""
  shown = {
    'commands': [c for _, c in COMMANDS if c not in KNOWN],
    'flags': [s for page in PAGES.values() for s in flag_names(page)],
    'keys': [s for page in PAGES.values() for s in keys(page)],
    'code': [b for page in PAGES.values() for b in blocks(page, 'python')],
  }
  finished = run_python('-m', 'tests.pages', given=json.dumps(shown))
  return json.loads(finished.stdout.splitlines()[-1])


def flag_names(page: str) -> list[str]:
  """Flags that a page names, but for those of the configuration."""
  return [
    match[1]
    for span in spans(page)
    if (match := re.match(r'--([a-z_]+)(?![a-z_.])', span))
  ]


def keys(page: str) -> list[str]:
  """Keys of the configuration that a page names."""
  sections = 'model|data|loss|optimizer|train|eval|predict'
  return [
    match[1]
    for span in spans(page)
    if (match := re.match(rf'((?:{sections})(\.[a-z_0-9]+)+)(?:=|$)', span))
    or (match := re.match(r'--config\.([\w.]+)', span))
    if not span.endswith('.txt')
  ]


@pytest.mark.parametrize(
  ('page', 'command'), COMMANDS, ids=lambda x: x if isinstance(x, str) else None
)
def test_a_command_is_one_that_a_program_takes(page, command, wrong):
  if command not in KNOWN:
    assert wrong['commands'][shlex.join(command)] == ''


def test_all_kinds_of_commands_were_found():
  programs = {c[2] for _, c in COMMANDS if c[:2] == ['python', '-m']}
  tools = {p.stem for p in (PACKAGE / 'tools').glob('[a-z]*')} - {'__pycache__'}
  assert programs == {
    'emanet_jax.main',
    'pytest',
    *(f'emanet_jax.tools.{tool}' for tool in tools),
  }
  assert {page for page, _ in COMMANDS} >= {'README.md', *BOOKS}
  setup = [c for page, c in COMMANDS if page == 'README.md'][:4]
  assert setup == [
    *KNOWN[:3],
    shlex.split(
      'python -m emanet_jax.main --config configs/shapes.py '
      '--workdir runs/shapes'
    ),
  ]


@pytest.mark.parametrize('what', ['flags', 'keys', 'code'])
def test_what_the_pages_name_is_there(what, wrong):
  assert len(wrong[what]) >= 3
  assert {k: v for k, v in wrong[what].items() if v} == {}


@pytest.mark.parametrize('name', PAGES)
def test_what_a_page_points_to_is_there(name):
  page, folder = PAGES[name], (REPOSITORY / name).parent
  links = re.findall(r'\]\(([^)#]+)\)', page)
  missing = [x for x in links if '://' not in x and not (folder / x).exists()]
  assert not missing
  assert not [span for span in spans(page) if not there(span)]


# Folders of whoever runs README's commands in the checkout.
USERS = {'data', 'pretrained', 'runs'}


def there(span: str) -> bool:
  """Whether a span is no path of the repository, or one that exists.

  Such a path starts at its root, or in the package; modules may have dots.
  """
  if re.fullmatch(r'emanet_jax(\.\w+)+', span) and 'NAME' not in span:
    span = span.replace('.', '/')
    return any((REPOSITORY / f'{span}{end}').exists() for end in ('', '.py'))
  if not re.fullmatch(r'[\w./-]+', span):
    return True
  roots = [REPOSITORY, PACKAGE]
  first = span.partition('/')[0]
  tops = {path.name for root in roots for path in root.iterdir()}
  is_path = '/' in span and first in tops - USERS
  if is_path or re.search(r'\.(py|md|cff|toml)$', span):
    foreign = {'labelme2voc.py'}
    return span in foreign or any((root / span).exists() for root in roots)
  return True


def test_the_rooms_are_drawn():
  drawing = blocks(PAGES['docs/architecture.md'], 'text')[0]
  path, drawn = [], set()
  for line in drawing.splitlines():
    indent, name = re.match(r'( *)(\S+)', line).groups()
    path[len(indent) // 2 :] = [name]
    drawn.add(''.join(path).rstrip('/'))
  assert not [p for p in drawn if not (REPOSITORY / p).exists()]
  rooms = {p.parent for p in PACKAGE.rglob('__init__.py')}
  modules = set(PACKAGE.glob('[a-z]*.py'))
  for place in sorted(rooms | modules):
    assert str(place.relative_to(REPOSITORY)) in drawn


def test_the_floors_are_those_of_the_imports():
  drawing = blocks(PAGES['docs/architecture.md'], 'text')[1]
  rooms = [
    re.sub(r'\(.*?\)', '', line).split() for line in drawing.splitlines()
  ]
  drawn = [{r for r in line if r != 'data'} for line in rooms]
  held = [{r for r in names if not r.startswith('data.')} for names in FLOORS]
  assert drawn[::-1] == [names for names in held if names]
  below = FLOORS[: next(i for i, f in enumerate(FLOORS) if 'models' in f) + 1]
  order = [r.partition('.')[2] for f in below for r in f if 'data.' in r]
  shown = re.search(r'\((.*)\)', drawing)[1].split(' → ')
  assert shown == [r for r in order[::-1] if r != 'prepared']


def test_the_front_door_is_one_page():
  assert len(PAGES['README.md'].splitlines()) <= 150
  pages = set(re.findall(r'\((docs/\w+\.md)\)', PAGES['README.md']))
  assert pages == {name for name in PAGES if name.startswith('docs/')}


@pytest.mark.parametrize('name', PAGES)
def test_lines_are_short_but_for_tables(name):
  lines = [x for x in PAGES[name].splitlines() if not x.startswith('|')]
  assert not [line for line in lines if len(line) > 80]


def test_a_figure_stands_in_one_place():
  places = {}
  for name, page in PAGES.items():
    for figure in re.findall(r'(?<![\w.])\d+\.\d\d+(?!\.?\w|-)', page):
      places.setdefault(figure, set()).add(name)
  assert len(places) > 30
  assert {k: v for k, v in places.items() if len(v) > 1} == {}
