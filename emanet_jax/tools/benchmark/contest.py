"""Contenders that do the same work in turns, each in a process of its own.

A process of its own keeps one framework's threads, allocator and memory out of
the other's figures. The turns alternate, so that both meet the same moods of
the machine, and each pair of neighbouring turns gives one ratio.

As a program (`python -m ...contest`, with a line of JSON on stdin) it is one
contender; `run` starts it.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from emanet_jax.errors import UserError
from emanet_jax.tools.benchmark.summary import spread

_WARM_UP = 2  # steps that are not counted


@dataclasses.dataclass(frozen=True)
class Subject:
  """Something to be timed.

  Attributes:
    step: Does the work once, and returns when it is done.
    about: Facts for the report, as JSON holds them.
    device_bytes: The most memory that it has had on its device; None where
      that is the memory of the process.
  """

  step: Callable[[], Any]
  about: dict[str, Any]
  device_bytes: Callable[[], int] | None = None


@dataclasses.dataclass(frozen=True)
class Contender:
  """How a process comes by its subject.

  Attributes:
    prepare: 'module:function' that returns a `Subject`.
    options: Its keyword arguments, as JSON holds them.
  """

  prepare: str
  options: dict[str, Any]


def run(
  contenders: dict[str, Contender], *, rounds: int, steps: int
) -> dict[str, Any]:
  """Measures contenders in turns; the first is compared with the others.

  What compiles is started twice, and the first start only prepares: programs
  compiled then are there for the second, as for whoever trains again. Each turn
  is told when it ends, so that a run which is cut short has told something.

  Args:
    contenders: Name → contender.
    rounds: Of one turn each.
    steps: Of a turn.

  Returns:
    As JSON holds it: 'contenders', name → its subject's facts; if it compiles,
    'restore_seconds', what that took the second time (programs that compile
    within a second are not kept); 'peak_bytes' beyond what the process had
    after its imports; and 'seconds', [median, least, most] of its turns' median
    steps. 'ratios', other's name → the same of the first's time over the
    other's, round by round.

  Raises:
    UserError: A contender failed; what it wrote is in the log before.
  """
  with tempfile.TemporaryDirectory() as cache, contextlib.ExitStack() as stack:
    found, processes = {}, {}
    for name, contender in contenders.items():
      logging.info('preparing %s', name)
      process = stack.enter_context(_started(contender, cache))
      found[name] = _answer(process, name)['about']
      if 'compile_seconds' in found[name]:
        process.kill()
        process.wait()  # its memory is the next one's
        process = stack.enter_context(_started(contender, cache))
        again = _answer(process, name)['about']
        found[name]['restore_seconds'] = again['compile_seconds']
      processes[name] = process
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
      for name, process in processes.items():
        _say(process, steps)
        seconds[name].append(_answer(process, name)['median'])
        shown = f'{name} {seconds[name][-1]:.4f} s a step'
        logging.info('round %d/%d: %s', i + 1, rounds, shown)
    for name, process in processes.items():
      _say(process, 0)
      found[name]['peak_bytes'] = _answer(process, name)['peak_bytes']
      found[name]['seconds'] = spread(seconds[name])
  first, *others = contenders
  ratios = {
    name: spread(
      [a / b for a, b in zip(seconds[first], seconds[name], strict=True)]
    )
    for name in others
  }
  return {'contenders': found, 'ratios': ratios}


@contextlib.contextmanager
def _started(contender: Contender, cache: str) -> Iterator[subprocess.Popen]:
  environment = {
    **os.environ,
    'JAX_COMPILATION_CACHE_DIR': cache,
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',  # the GPU is shared
  }
  with subprocess.Popen(
    [sys.executable, '-m', __name__],
    env=environment,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      _say(process, dataclasses.asdict(contender))
      yield process
    finally:
      process.kill()
      with contextlib.suppress(BrokenPipeError):  # what it never read
        process.stdin.close()


def _say(process: subprocess.Popen, message: Any) -> None:
  with contextlib.suppress(BrokenPipeError):  # its answer will be missed
    process.stdin.write(json.dumps(message) + '\n')
    process.stdin.flush()


def _answer(process: subprocess.Popen, name: str) -> dict[str, Any]:
  line = process.stdout.readline()
  if not line:
    raise UserError(
      f'the process that measures {name} ended with {process.wait()}; what it '
      'wrote is above'
    )
  return json.loads(line)


def _host_bytes(key: str) -> int:
  """Memory of this process in bytes, by its name in Linux' status file."""
  status = pathlib.Path('/proc/self/status')
  if not status.exists():  # the most so far, in bytes on a Mac
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  (line,) = [x for x in status.read_text().splitlines() if x.startswith(key)]
  return int(line.split()[1]) * 1024


def main() -> None:
  """Reads a contender, then numbers of steps; answers each with a line."""
  # What libraries print to stdout must not stand between the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(message):
    answers.write(json.dumps(message) + '\n')
    answers.flush()

  contender = json.loads(sys.stdin.readline())
  module, _, function = contender['prepare'].partition(':')
  prepare = getattr(importlib.import_module(module), function)
  before = _host_bytes('VmRSS')
  subject = prepare(**contender['options'])
  answer({'about': subject.about})
  for i, line in enumerate(sys.stdin):
    if i == 0:
      for _ in range(_WARM_UP):
        subject.step()
    if json.loads(line) == 0:
      peak = subject.device_bytes
      used = peak() if peak else _host_bytes('VmHWM') - before
      answer({'peak_bytes': used})
      return
    times = []
    for _ in range(json.loads(line)):
      start = time.perf_counter()
      subject.step()
      times.append(time.perf_counter() - start)
    answer({'median': statistics.median(times)})


if __name__ == '__main__':
  main()
