"""A signal ends a program in one line, whenever it comes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


# Whoever runs the tests may have ignored one, as nohup does.
HEEDED = """
import signal
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
  signal.signal(number, signal.SIG_DFL)
"""


def program(code):
  return subprocess.Popen(
    [sys.executable, '-c', HEEDED + code],
    cwd=tiny.REPOSITORY,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


BUSY = """
import ctypes, sys
from emanet_jax.runtime.early_exit import ending_at_once
with ending_at_once('all is saved'):
  print('ready', flush=True)
  ctypes.CDLL(None).pause()  # in C, where Python's handlers have no turn
  ctypes.CDLL(None).sleep(60)
"""


@pytest.mark.parametrize('number', SIGNALS, ids=lambda n: n.name)
def test_it_ends_at_once_while_c_code_runs(number):
  process = program(BUSY)
  assert process.stdout.readline() == 'ready\n'
  begin = time.monotonic()
  process.send_signal(number)
  _, told = process.communicate(timeout=30)
  assert time.monotonic() - begin < 10
  assert process.returncode == 128 + number
  assert told == f'{number.name}: all is saved\n'


NOTICE = """
import signal, time
from emanet_jax.runtime.early_exit import ending_at_once
from emanet_jax.runtime.preemption import StopNotice
with ending_at_once('outside'):
  with StopNotice() as notice:
    print('ready', flush=True)
    while not notice.asked(1):
      time.sleep(0.01)
    print('asked', flush=True)
    {rest}
print('done', flush=True)
"""


@pytest.mark.parametrize('number', SIGNALS, ids=lambda n: n.name)
def test_the_first_asks_and_the_second_ends_without_a_traceback(number):
  process = program(NOTICE.format(rest='time.sleep(60)'))
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(number)
  assert process.stdout.readline() == 'asked\n'
  process.send_signal(number)
  _, told = process.communicate(timeout=30)
  assert process.returncode == -number
  assert 'Traceback' not in told


def test_after_the_notice_signals_end_at_once_again():
  rest = "pass\n  print('left', flush=True); time.sleep(60)"
  process = program(NOTICE.format(rest=rest))
  process.stdout.readline()
  process.send_signal(signal.SIGHUP)
  assert process.stdout.readline() == 'asked\n'
  assert process.stdout.readline() == 'left\n'
  process.send_signal(signal.SIGTERM)
  _, told = process.communicate(timeout=30)
  assert process.returncode == 128 + signal.SIGTERM
  assert told.endswith('SIGTERM: outside\n')


def test_what_was_ignored_stays_so():
  """As SIGHUP is under nohup."""
  code = 'import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n'
  process = program(code + NOTICE.format(rest='pass'))
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGHUP)
  time.sleep(0.3)
  assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=30)
  assert output == 'asked\ndone\n'
  assert process.returncode == 0


@pytest.mark.parametrize('delay', [0.2, 1.0, 3.0])
def test_a_program_that_begins_ends_in_one_line(delay, tmp_path):
  """In imports, flags or compilation, whichever it is at by then."""
  flags = tiny.flags(tmp_path / 'run', data__data_dir=tmp_path / 'data')
  module = "'emanet_jax.main', run_name='__main__', alter_sys=True"
  main = f'{HEEDED}\nimport runpy\nrunpy.run_module({module})'
  process = subprocess.Popen(
    [sys.executable, '-c', main, *flags],
    cwd=tiny.REPOSITORY,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stderr=subprocess.PIPE,
    text=True,
  )
  time.sleep(delay)
  process.send_signal(signal.SIGINT)
  _, told = process.communicate(timeout=60)
  assert 'Traceback' not in told
  if process.returncode != -signal.SIGINT:  # Python itself had not begun
    assert process.returncode == 128 + signal.SIGINT
    assert told.splitlines()[-1] == 'SIGINT: ended; what is saved stays'
