"""Launching with stand-ins for all commands that it needs."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.launch.standins.__main__ import STAND_INS
from tests.launch.standins.common import TOLD
from tests.tiny import REPOSITORY


@dataclasses.dataclass(frozen=True)
class Launched:
  """How a script ended, what it wrote, and what its commands were called with.

  Each call has `command`, `environment` and, of some commands, `options`.
  """

  code: int
  output: str
  calls: list[dict]

  def of(self, name: str) -> list[dict]:
    return [call for call in self.calls if call['command'][0] == name]


@pytest.fixture(scope='session')
def launch(tmp_path_factory):
  """Returns a function (script, variables) -> Launched."""
  folder = tmp_path_factory.mktemp('standins')
  (folder / 'bin').mkdir()
  for name in STAND_INS:
    program = folder / 'bin' / name
    program.write_text(
      f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} '
      f'-m tests.launch.standins {name} "$@"\n'
    )
    program.chmod(0o755)
  outer = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith((*TOLD, 'STANDINS_'))
  }

  def run(script: str, **variables: str) -> Launched:
    home = tmp_path_factory.mktemp('home')
    calls = pathlib.Path(home, 'calls')
    calls.touch()
    finished = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', script],
      cwd=REPOSITORY,
      env={
        **outer,
        'PATH': f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'HOME': str(home),
        'STANDINS_CALLS': str(calls),
        **variables,
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=120,
    )
    lines = calls.read_text().splitlines()
    return Launched(
      finished.returncode, finished.stdout, [json.loads(x) for x in lines]
    )

  return run
