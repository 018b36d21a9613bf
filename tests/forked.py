"""Runs many commands for the price of one start.

Importing JAX and all else takes seconds, running into a mistake takes none: the
commands run in copies of a process that has the imports behind it.

  python -m tests.forked

reads a line per command, a JSON list of variables, module and arguments, as
[{}, "emanet_jax.main", "--mode=test"], and writes one for it, [exit code,
stdout, stderr].
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile

import pytest

from tests import tiny
from tests.xla_flags import QUICK_PROGRAM

_LIMIT = 240  # seconds, after which a command is killed


class Commands:
  """Of Python's modules, run in the repository on a CPU, one at a time."""

  def __init__(self):
    self._server = subprocess.Popen(
      [sys.executable, '-m', 'tests.forked'],
      cwd=tiny.REPOSITORY,
      env={**os.environ, **QUICK_PROGRAM},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def run(
    self, module: str, *arguments: str, **environment: str
  ) -> subprocess.CompletedProcess:
    """Like `python -m module *arguments`, with more variables."""
    command = json.dumps([environment, module, *arguments])
    print(command, file=self._server.stdin, flush=True)
    code, *outputs = json.loads(self._server.stdout.readline())
    return subprocess.CompletedProcess([module, *arguments], code, *outputs)

  def close(self):
    self._server.communicate(timeout=10)


@pytest.fixture(scope='session')
def commands():
  commands = Commands()
  yield commands
  commands.close()


def _run(environment, module, *arguments):
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    child = os.fork()
    if not child:
      signal.alarm(_LIMIT)
      os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
      os.dup2(out.fileno(), 1)
      os.dup2(err.fileno(), 2)
      os.environ.update(environment)
      sys.argv = [module, *arguments]
      try:
        runpy.run_module(module, run_name='__main__', alter_sys=True)
      except SystemExit as ended:
        if isinstance(ended.code, str):
          raise
        _end(ended.code or 0)
      _end(0)
    _, status = os.waitpid(child, 0)
    outputs = []
    for stream in (out, err):
      stream.seek(0)
      outputs.append(stream.read().decode())
    return os.waitstatus_to_exitcode(status), *outputs


def _end(code):
  """Without taking all that was imported to pieces, which takes a second."""
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _serve():
  # All that programs import, but for those themselves: they define flags.
  gc.disable()  # sooner
  import emanet_jax.prediction.predict
  import emanet_jax.training.follow  # noqa: F401

  gc.freeze()  # copies need not look through it
  gc.enable()
  answers = os.fdopen(os.dup(1), 'w')
  for line in sys.stdin:
    print(json.dumps(_run(*json.loads(line))), file=answers, flush=True)


if __name__ == '__main__':
  _serve()
