"""Notice of being stopped: by a cluster, Ctrl-C, or a terminal that closes."""

import contextlib
import os
import signal
import sys
import types
from collections.abc import Iterator

import jax
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax.runtime.early_exit import STOPPING, ending_at_once

# What a program ends with that was stopped before its work was done: try again.
STOPPED = os.EX_TEMPFAIL  # 75


class StopNotice:
  """A context in which a first SIGTERM, SIGINT or SIGHUP asks, not kills.

  A second one of the same kind ends the process at once. With several processes
  a SIGTERM to any of them reaches all at the same step, through JAX's
  distributed runtime; the others end the process at once there. Signals that
  were ignored when it began, as SIGHUP under nohup, stay so.
  """

  def __init__(self):
    self._asked = self._all_saved = False
    self._previous = {}

  def __enter__(self) -> 'StopNotice':
    self._listening = signal.set_wakeup_fd(-1)  # of `ending_at_once` outside
    for number in STOPPING:
      if signal.getsignal(number) is signal.SIG_IGN:
        continue
      if jax.process_count() == 1:
        self._previous[number] = signal.signal(number, self._on_signal)
      # The distributed runtime listens for SIGTERM itself.
      elif number != signal.SIGTERM:
        self._previous[number] = signal.signal(number, signal.SIG_DFL)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._listening)

  def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self._all_saved:
      logging.info('%s: all is saved', signal.Signals(number).name)
      sys.exit(STOPPED)
    # Only noted: the loop saves when its step is done.
    self._asked = True
    logging.info('%s: stopping after this step', signal.Signals(number).name)
    signal.signal(number, signal.SIG_DFL)  # without a traceback

  @contextlib.contextmanager
  def ending_at_once(self, what: str) -> Iterator[None]:
    """Inside, a signal ends the process at once, even while XLA compiles.

    With several processes it does what it does outside.

    Args:
      what: Is told besides the signal.
    """
    with contextlib.ExitStack() as stack:
      if jax.process_count() == 1:
        stack.enter_context(ending_at_once(what))
      yield

  @contextlib.contextmanager
  def all_saved(self) -> Iterator[None]:
    """Inside, a signal ends the process at once, with STOPPED.

    So does one that came since the last `asked`.
    """
    self._all_saved = True
    try:
      if self._asked:
        sys.exit(STOPPED)
      yield
    finally:
      self._all_saved = False

  def asked(self, step: int) -> bool:
    """Whether to stop after this step; the same on every process."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
