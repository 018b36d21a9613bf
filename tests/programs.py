"""Programs that tests start and wait for."""

import os
import subprocess
import sys

from tests import tiny


def run_python(*arguments, given=None, **environment):
  """Runs Python in the repository, on a CPU; fails unless it ends well.

  Args:
    *arguments: Of Python, as ('-c', 'print(1)').
    given: What it reads.
    **environment: More variables; None takes one away.
  """
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', **environment}
  finished = subprocess.run(
    [sys.executable, *arguments],
    cwd=tiny.REPOSITORY,
    env={k: v for k, v in environment.items() if v is not None},
    input=given,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert finished.returncode == 0, finished.stderr
  return finished
