"""Signals while there is nothing to save: one line, and the end at once.

Imports nothing but Python's own: a program listens before it imports the rest,
which takes seconds.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

# Of a terminal that closes, Ctrl-C, and kill or a cluster.
STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ending_at_once(what: str) -> Iterator[None]:
  """Inside, a signal ends the process with 128 plus its number.

  Python's own handlers wait until the interpreter has its turn, which it may
  not have for minutes of a compilation: a thread listens. Signals that were
  ignored when the process began, as under nohup, stay so.

  Args:
    what: Is told besides the signal, as 'nothing has begun'.
  """
  heard, tell = os.pipe()
  os.set_blocking(tell, False)
  before = {
    number: signal.signal(number, lambda *_: None)
    for number in STOPPING
    if signal.getsignal(number) is not signal.SIG_IGN
  }
  outer = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
  listener = threading.Thread(target=_listen, args=(heard, what), daemon=True)
  listener.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(outer)
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(tell)  # which ends the listener
    listener.join()
    os.close(heard)


def _listen(heard: int, what: str) -> None:
  while numbers := os.read(heard, 1):
    if (number := numbers[0]) in STOPPING:
      print(f'{signal.Signals(number).name}: {what}', file=sys.stderr)
      sys.stderr.flush()
      os._exit(128 + number)
