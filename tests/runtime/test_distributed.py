"""How the processes of a cluster come together, or do not."""

import subprocess
import sys

from emanet_jax.runtime.preemption import STOPPED
from tests import tiny

# As JAX's look at Kubernetes ends before the first pod has a name.
UNKNOWN = """
import runpy, socket, sys
import jax

def initialize(**options):
  raise socket.gaierror(-2, 'Name or service not known')

jax.distributed.initialize = initialize
sys.argv = ['main', '--config=configs/shapes.py', '--workdir=nowhere']
runpy.run_module('emanet_jax.main', run_name='__main__')
"""


def test_a_name_that_is_not_known_yet_may_be_asked_for_again():
  result = subprocess.run(
    [sys.executable, '-c', UNKNOWN],
    cwd=tiny.REPOSITORY,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == STOPPED, result.stderr
  assert result.stderr.splitlines()[-1] == (
    'error: --distributed=auto: the other processes were not found ([Errno -2] '
    'Name or service not known)'
  )
