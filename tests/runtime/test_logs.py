"""What a program says: its own progress, and of libraries the gist."""

from tests.programs import run_python

PROGRAM = """
import logging, sys, threading
from absl import logging as absl
from emanet_jax.runtime import logs
logs.log_own_progress()
handler = absl.get_absl_handler()
def say(path, level, text, exc_info=None):
  record = logging.LogRecord('absl', level, path, 1, text, (), exc_info)
  if handler.filter(record):
    print(handler.format(record), flush=True)
def fail(text):
  raise RuntimeError(text)
own = logs.__file__
say(own, logging.INFO, 'ours')
say(own, logging.WARNING, 'ours too\\nin two lines')
say('/lib/x.py', logging.INFO, 'theirs')
say('/lib/x.py', logging.WARNING, 'a warning')
try:
  fail('of theirs')
except RuntimeError:
  say('/lib/x.py', logging.ERROR, 'an error\\nat length', sys.exc_info())
  say(own, logging.ERROR, 'an error of ours', sys.exc_info())
sys.excepthook(RuntimeError, RuntimeError('Event loop is closed'), None)
sys.excepthook(RuntimeError, RuntimeError('anything else'), None)
"""


def test_of_libraries_the_gist_is_told():
  finished = run_python('-c', PROGRAM)
  said = [x.partition('] ')[2] or x for x in finished.stdout.splitlines()]
  assert said[:5] == [
    'ours',
    'ours too',
    'in two lines',
    'a warning',
    'an error',
  ]
  assert said[5] == 'an error of ours'
  assert said[-1] == 'RuntimeError: of theirs'
  assert said.count('RuntimeError: of theirs') == 1
  assert finished.stderr == 'RuntimeError: anything else\n'
