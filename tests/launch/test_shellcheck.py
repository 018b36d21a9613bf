"""All shell that is here, read by shellcheck."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.launch.test_launching import shown
from tests.tiny import REPOSITORY

FILES = [
  *sorted((REPOSITORY / 'launch').glob('*.sh')),
  REPOSITORY / 'launch' / 'slurm.sbatch',
  REPOSITORY / '.ci' / 'run',
]
TASK = yaml.safe_load((REPOSITORY / 'launch' / 'skypilot.yaml').read_text())
SCRIPTS = {
  **{str(path.relative_to(REPOSITORY)): path.read_text() for path in FILES},
  **{f'docs/launching.md: {k}': v for k, v in shown().items()},
  **{f'launch/skypilot.yaml: {k}': TASK[k] for k in ('setup', 'run')},
}


def complaints(script: str) -> str:
  own = pathlib.Path(sys.executable).parent  # of a venv that is not active
  path = f'{own}{os.pathsep}{os.environ["PATH"]}'
  program = shutil.which('shellcheck', path=path)
  # What is sourced there is not here.
  flags = ['--shell=bash', '--exclude=SC1090,SC1091', '--format=gcc', '-']
  finished = subprocess.run(
    [program, *flags], input=script, capture_output=True, text=True
  )
  return finished.stdout + finished.stderr


@pytest.mark.parametrize('name', SCRIPTS)
def test_shellcheck_has_nothing_to_say(name):
  assert complaints(SCRIPTS[name]) == ''


def test_shellcheck_finds_mistakes():
  assert 'SC2086' in complaints('run() { python $1; }')
