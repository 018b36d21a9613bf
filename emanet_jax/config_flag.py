"""The flag `--config`: a run book, and changes to it from the command line.

A run book is looked for in the working folder, then among those that come with
the installed package, so that `--config configs/voc.py` works in a checkout and
outside of one.
"""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from emanet_jax.config import Choice
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
    return flags.FLAGS(argv)
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


def find_run_book(path: str) -> str:
  """The path itself, or the run book's that comes with the package.

  That is the path below the installed package, or, of an editable install,
  below the checkout.
  """
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
