"""Subjects of a contest that take known times."""

import os
import threading
import time

from emanet_jax.tools.benchmark.contest import Subject


def sleeping(seconds, log, compiles):
  """Sleeps for so long in a step; notes in a file what it is asked for."""

  def note(what):
    with open(log, 'a') as file:
      file.write(f'{seconds} {what}\n')

  def step():
    note('step')
    time.sleep(seconds)

  note(f'start {os.environ["JAX_COMPILATION_CACHE_DIR"]}')
  print('not an answer')
  about = {'seconds_asked': seconds}
  return Subject(step, about | ({'compile_seconds': 1} if compiles else {}))


def hungry(megabytes):
  """Takes so much memory in a step."""

  def step():
    return len(bytearray(megabytes << 20))

  return Subject(step, {})


def broken():
  raise RuntimeError('no such device')


def fleeting():
  """Ends when nobody is looking."""
  threading.Timer(0.5, lambda: os._exit(3)).start()
  return Subject(lambda: None, {})
