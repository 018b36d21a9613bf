"""The flag `--config`: a run book, and changes to it from the command line.

A run book is looked for in the working folder, then among those that come with
the installed package, so that `--config configs/voc.py` works in a checkout and
outside of one.
"""

import difflib
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from emanet_jax.config import Choice, default_config
from emanet_jax.errors import UserError

_OVERRIDE = re.compile(r'--?(?:no)?config\.([^=]+)(?:=(.*))?', re.DOTALL)


def define() -> flags.FlagHolder:
  """Defines `--config`; to be parsed by `parse_flags`."""
  holder = config_flags.DEFINE_config_file(
    'config',
    help_string='Run book; any leaf can be set: --config.train.steps=9.',
  )
  flag = flags.FLAGS['config']
  flag.parser = _RunBookParser(flag.parser)
  return holder


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses all flags; what is wrong with them ends in one line, exit 1."""
  try:
    rest = flags.FLAGS(argv)
    if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
      check_values(flags.FLAGS.config)
    return rest
  except (AttributeError, KeyError) as error:  # str() would quote the message
    sys.exit(f'error: in the configuration: {error.args[0]}')
  except (OSError, TypeError, ValueError, flags.Error) as error:
    sys.exit(f'error: {error}')


class _RunBookParser(flags.ArgumentParser):
  """Loads a run book, lets names bring their options, and checks the keys.

  ml_collections itself looks a key's type up before any is set, so what a name
  brings must be there by then.
  """

  def __init__(self, load: flags.ArgumentParser):
    self._load = load

  def parse(self, argument: str) -> ml_collections.ConfigDict:
    config = self._load.parse(find_run_book(argument))
    try:
      overrides = _overrides(sys.argv)
      for key, value in overrides.items():
        above, _, last = key.rpartition('.')
        if last == 'name' and isinstance(_get(config, above), Choice):
          _get(config, above).name = value
      for key in overrides:
        _check_key(config, key)
    except UserError as error:  # a ValueError, which absl would wrap
      raise KeyError(str(error)) from error
    return config

  def flag_type(self) -> str:
    return self._load.flag_type()


def check_values(config: ml_collections.ConfigDict) -> None:
  """Checks what ml_collections does not: in tuples, and of floats.

  Raises:
    UserError: A tuple holds other than numbers of its default's kind, whole
      ones where that is empty; or a number is infinite or none.
  """
  default = default_config()
  _choose_alike(default, config)
  default = flatten_dict(default.to_dict(), sep='.')
  for key, value in flatten_dict(config.to_dict(), sep='.').items():
    values = value if isinstance(value, tuple | list) else (value,)
    if any(isinstance(x, float) and not math.isfinite(x) for x in values):
      raise UserError(f'{key} is {value}; give a finite number')
    if not isinstance(default.get(key), tuple):
      continue
    floats = any(isinstance(x, float) for x in default[key])
    kinds = (int, float) if floats else int
    if any(isinstance(x, bool) or not isinstance(x, kinds) for x in value):
      kind = 'numbers' if floats else 'whole numbers'
      example = default[key] or (1, 2)
      raise UserError(f'{key} is {value}; give {kind}, as "{example}"')


def _choose_alike(
  default: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> None:
  """Has a configuration's defaults be those of the parts that it chooses."""
  for key, section in config.items():
    if isinstance(section, Choice):
      default[key].name = section.name
    elif isinstance(section, ml_collections.ConfigDict):
      _choose_alike(default[key], section)


def find_run_book(path: str) -> str:
  """The path itself, or the run book's that comes with the package.

  That is the path below the installed package, or, of an editable install,
  below the checkout.
  """
  path = os.path.expanduser(path)
  package = Path(__file__).parent
  for folder in (Path(), package, package.parent):
    if (folder / path).is_file():
      return str(folder / path)
  return path  # whose absence is told as the user wrote it


def _overrides(argv: Sequence[str]) -> dict[str, str | None]:
  """Dotted keys to text, of `--config.KEY=TEXT` and `--config.KEY TEXT`."""
  found = {}
  for argument, following in zip(argv, [*argv[1:], None], strict=True):
    if match := _OVERRIDE.fullmatch(argument):
      key, value = match.groups()
      found[key] = following if value is None else value
  return found


def _get(config: ml_collections.ConfigDict, key: str):
  """What is at a dotted key; None where nothing is."""
  for part in filter(None, key.split('.')):
    if not isinstance(config, ml_collections.ConfigDict) or part not in config:
      return None
    config = config[part]
  return config


def _check_key(config: ml_collections.ConfigDict, key: str) -> None:
  """Raises a UserError for a key that is not there, listing those that are."""
  place, above = config, ''
  for part in key.split('.'):
    if not isinstance(place, ml_collections.ConfigDict):
      raise UserError(f'config.{above} is a value; there is no config.{key}')
    if part not in place:
      known = list(place.keys())
      close = difflib.get_close_matches(part, known, 1)
      where = f'config.{above}' if above else 'config'
      chosen = f', with the name {place.name!r},' if 'name' in place else ''
      raise UserError(
        f'there is no config.{key}; {where}{chosen} has {", ".join(known)}'
        + (f'. Did you mean {close[0]!r}?' if close else '')
      )
    place = place[part]
    above = f'{above}.{part}'.lstrip('.')
