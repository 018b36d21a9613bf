"""Checks what the pages show: `python -m tests.pages`.

Reads it as JSON, and writes what is wrong with it. A process of its own, since
the flags of all programs are defined there, and the pages' examples become
parts.
"""

import ast
import importlib
import json
import pathlib
import re
import shlex
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from absl.testing import flagsaver

from emanet_jax import config_flag, parts
from emanet_jax.config import default_config
from emanet_jax.data import datasets
from emanet_jax.data.input.augmentations import create_augmentations
from emanet_jax.evaluation import settings
from emanet_jax.models.segmenter import create_model
from emanet_jax.tools.ablation import grids
from emanet_jax.tools.plan import targets
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import create_optimizer


def main() -> None:
  """Reads what pages show and writes what is wrong with it."""
  shown = json.loads(sys.stdin.read())
  with tempfile.TemporaryDirectory() as folder:
    install_examples(shown['code'], pathlib.Path(folder))
    wrong, names = check_commands(shown['commands'])
    report = {
      'commands': wrong,
      'flags': {x: '' if x in names else 'no flag' for x in shown['flags']},
      'keys': {x: '' if has_key(x) else 'no key' for x in shown['keys']},
      'code': {x: check_code(x) for x in shown['code']},
    }
  print(json.dumps(report))


def install_examples(code: list[str], root: pathlib.Path) -> None:
  """Makes parts of blocks that begin with a path of the package."""
  for block in code:
    if match := re.match(r'# (emanet_jax/(?:\w+/)+\w+\.py)\n', block):
      path = root / match[1]
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(block)
      package = '.'.join(path.parent.relative_to(root).parts)
      importlib.import_module(package).__path__.append(str(path.parent))


def check_commands(given: list[list[str]]) -> tuple[dict[str, str], set[str]]:
  """What is wrong with each command; and the names of all flags."""
  wrong, names = {shlex.join(c): 'no program of ours' for c in given}, set()
  base = flagsaver.save_flag_values()
  # Both define --config: the tool imports the program.
  together = ['emanet_jax.main', 'emanet_jax.tools.export']
  tools = (
    *('ablation', 'prepare_data', 'convert_torch', 'benchmark', 'plan'),
    'model_table',
  )
  for programs in (*([f'emanet_jax.tools.{t}'] for t in tools), together):
    for program in programs:
      module = import_program(program)
      names |= set(flags.FLAGS)
      for command in given:
        if command[:3] == ['python', '-m', program]:
          wrong[shlex.join(command)] = check_command(module, command[2:])
    flagsaver.restore_flag_values(base)
  return wrong, names


def import_program(name: str):
  module = importlib.import_module(name)
  if hasattr(module, '__path__'):
    module = importlib.import_module(f'{name}.__main__')
  return module


def check_command(module, argv: list[str]) -> str:
  saved = flagsaver.save_flag_values()
  sys.argv = argv  # where ml_collections looks for a configuration's keys
  try:
    check_arguments(module, config_flag.parse_flags(argv)[1:])
  except (SystemExit, Exception) as error:
    return f'{type(error).__name__}: {error}'
  finally:
    flagsaver.restore_flag_values(saved)
  return ''


def check_arguments(module, rest: list[str]) -> None:
  """Checks what parsed flags say, and what is not a flag."""
  counts = dict.fromkeys(('main', 'plan', 'model_table'), 0)
  counts |= {'export': 2, 'convert_torch': 2}
  program = module.__name__.removesuffix('.__main__').rpartition('.')[2]
  assert len(rest) == counts.get(program, 1), rest
  if program == 'prepare_data':
    datasets.get_dataset(rest[0])
  if program == 'benchmark':
    assert re.search(rf'^  {rest[0]} ', module.__doc__, re.M), rest
  if program == 'plan':
    targets.parse(flags.FLAGS.target)
  if program == 'ablation':
    given = flags.FLAGS.config, flags.FLAGS.seeds, flags.FLAGS.heads
    assert grids.create(rest[0], *given).runs
  if program in ('main', 'export', 'plan', 'ablation'):
    check_config(flags.FLAGS.config)
  if program in ('main', 'ablation'):
    assert flags.FLAGS.workdir
  if program == 'main' and flags.FLAGS.mode == 'predict':
    options = flags.FLAGS.config.predict
    assert bool(options.input) != bool(options.split)


def check_config(config) -> None:
  """Makes what the values are for, which checks them."""
  classes = datasets.get_dataset(config.data.name).SPEC.num_classes or 2
  create_loss(config.loss, classes, np.full(classes, 1 / classes))
  model = create_model(config.model, classes)
  create_optimizer(config.optimizer, config.train.steps, model.frozen_params())
  create_augmentations(config.data.augmentations)
  settings.check(config)
  assert config.train.batch_size % config.train.accumulation_steps == 0


def has_key(key: str) -> bool:
  """Whether the configuration has it, whatever parts are chosen."""
  section, _, option = key.rpartition('.')
  for folder in (parts.HEADS, parts.OPTIMIZERS):
    if section == folder.key and any(
      option in folder.options(name) for name in folder.names()
    ):
      return True
  place = default_config()
  for part in key.split('.'):
    if not hasattr(place, 'keys') or part not in place:
      return False
    place = place[part]
  return True


def check_code(block: str) -> str:
  """Imports what a block imports; an example of a part does its work."""
  tree = ast.parse(block)
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom):
      module = importlib.import_module(node.module)
      for alias in node.names:
        if not hasattr(module, alias.name):
          return f'{node.module} has no {alias.name}'
  if match := re.match(r'# emanet_jax/(\S+)/(\w+)\.py\n', block):
    folder, name = match.groups()
    return {'models/heads': use_head, 'training/losses': use_loss}[folder](name)
  return ''


def use_head(name: str) -> str:
  head = parts.HEADS.create(name, 5, 0.9)
  features = (jnp.ones((2, 9, 9, 8)), jnp.ones((2, 5, 5, 16)))
  variables = head.init(jax.random.key(0), features, train=False)
  logits = head.apply(variables, features, train=False)
  return '' if logits.shape == (2, 5, 5, 5) else f'logits are {logits.shape}'


def use_loss(name: str) -> str:
  config = default_config().loss
  config.cross_entropy.weight, config[name].weight = 0.0, 1.0
  label = jnp.array([[[0, 1], [2, 255]]])
  logits = 9.0 * jax.nn.one_hot(label, 3)
  loss = create_loss(config, 3)
  right = float(loss(logits, label)[name])
  mistaken = float(loss(-logits, label)[name])
  return '' if 0 <= right < mistaken else f'{right} where right, {mistaken} not'


if __name__ == '__main__':
  main()
