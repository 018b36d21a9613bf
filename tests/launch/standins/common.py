"""What all stand-ins do: take flags, write down, run."""

import argparse
import json
import os
import pathlib
import subprocess
from collections.abc import Callable

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
# Variables that are written down.
TOLD = ('JAX_', 'XLA_', 'LIBTPU_', 'SLURM_', 'CUDA_', 'JOB_')


def record(name: str, arguments: list[str], **more: object) -> None:
  told = {k: v for k, v in os.environ.items() if k.startswith(TOLD)}
  line = {'command': [name, *arguments], 'environment': told, **more}
  with open(os.environ['STANDINS_CALLS'], 'a') as file:  # one write, whole
    file.write(json.dumps(line) + '\n')


def parser(name: str, values: str, switches: str = '', *, rest: bool = False):
  """Of flags with a value, and without one; words may follow, or a command."""
  made = argparse.ArgumentParser(name, allow_abbrev=False)
  for flag in values.split():
    made.add_argument(*flag.split('|'))
  for flag in switches.split():
    made.add_argument(*flag.split('|'), action='store_true')
  made.add_argument('words', nargs=argparse.REMAINDER if rest else '*')
  if not rest:
    made.parse_args = made.parse_intermixed_args
  return made


def run(command: list[str], **variables: object) -> int:
  environment = {**os.environ, **{k: str(v) for k, v in variables.items()}}
  return subprocess.run(command, env=environment).returncode


def simple(name: str, flags: argparse.ArgumentParser) -> Callable:
  """A stand-in that only takes its flags and writes them down."""

  def stand_in(arguments: list[str]) -> int:
    flags.parse_args(arguments)
    record(name, arguments)
    return 0

  return stand_in
