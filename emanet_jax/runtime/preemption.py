"""Notice of being stopped: SIGTERM, Ctrl-C, or a cluster's preemption."""

import contextlib
import signal
import sys
import types
from collections.abc import Iterator

import jax
from absl import logging
from jax.experimental import multihost_utils


class StopNotice:
  """A context in which a first SIGTERM or SIGINT asks instead of kills.

  A second one of the same kind acts as ever. With several processes a SIGTERM
  to any of them reaches all at the same step, through JAX's distributed
  runtime; Ctrl-C acts as ever there.
  """

  _SIGNALS = (signal.SIGTERM, signal.SIGINT)

  def __init__(self):
    self._asked = self._all_saved = False
    self._previous = {}

  def __enter__(self) -> 'StopNotice':
    # The distributed runtime listens for SIGTERM itself.
    if jax.process_count() == 1:
      for number in self._SIGNALS:
        self._previous[number] = signal.signal(number, self._on_signal)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self._all_saved:
      logging.info('%s: all is saved', signal.Signals(number).name)
      sys.exit(0)
    # Only noted: the loop saves when its step is done.
    self._asked = True
    logging.info('%s: stopping after this step', signal.Signals(number).name)
    signal.signal(number, self._previous[number])

  @contextlib.contextmanager
  def all_saved(self) -> Iterator[None]:
    """Inside, a signal ends the process at once, with exit code 0.

    So does one that came since the last `asked`.
    """
    self._all_saved = True
    try:
      if self._asked:
        sys.exit(0)
      yield
    finally:
      self._all_saved = False

  def asked(self, step: int) -> bool:
    """Whether to stop after this step; the same on every process."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked
