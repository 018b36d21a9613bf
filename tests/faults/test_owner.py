"""One run at a time has a workdir."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from emanet_jax.errors import UserError
from emanet_jax.runtime.ownership import own
from tests import tiny

HOLD = """
import sys
from emanet_jax.runtime.ownership import own
with own(sys.argv[1]):
  print('ready', flush=True)
  sys.stdin.read()
"""


def holder(folder):
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(folder)],
    cwd=tiny.REPOSITORY,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


def test_a_second_owner_is_refused_by_name_until_the_first_is_dead(tmp_path):
  folder = tmp_path / 'new' / 'run'
  first = holder(folder)
  with (
    pytest.raises(UserError) as error,
    own(folder),
  ):
    pass
  expected = f'in use by process {first.pid} on {socket.gethostname()}, since 2'
  assert expected in str(error.value)
  assert len(str(error.value).splitlines()) == 1
  first.send_signal(signal.SIGKILL)
  first.wait()
  with own(folder):
    assert f'process {os.getpid()}' in (folder / '.owner').read_text()
  with own(folder):
    pass


def test_a_second_run_is_refused_and_changes_nothing(tmp_path, commands):
  workdir = tmp_path / 'run'
  first = holder(workdir)
  before = tiny.hash_files(workdir)
  flags = tiny.flags(workdir, data__data_dir=tmp_path / 'data')
  done = commands.run('emanet_jax.main', *flags)
  assert done.returncode == 1
  assert f'error: {workdir} is in use by process {first.pid}' in done.stderr
  assert 'Traceback' not in done.stderr
  assert tiny.hash_files(workdir) == before
  first.communicate()
