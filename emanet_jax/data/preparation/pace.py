"""How often a long piece of work says how far it is."""

import time

_SECONDS = 5


class Pace:
  """Says when the next line of progress is due: every five seconds."""

  def __init__(self):
    self._start = self._last = time.monotonic()

  @property
  def seconds(self) -> float:
    """Since the work began."""
    return time.monotonic() - self._start

  def is_due(self) -> bool:
    """Whether to report now; if so, the next report is five seconds off."""
    now = time.monotonic()
    if now - self._last < _SECONDS:
      return False
    self._last = now
    return True
