"""The one meter of long work: how far it is, how fast, and the time left."""

import contextlib
import datetime
import time
from collections.abc import Iterator

from absl import logging

_INTERVAL = 5.0  # seconds between the lines of `tick`


class Progress:
  """Counts what is done, and logs a line on it from time to time.

  A line gives the rate since the line before it, and the time left at that
  rate; the last one gives the rate of the whole and the time that it took.
  """

  def __init__(
    self,
    title: str,
    total: int,
    *,
    done: int = 0,
    unit: str = 'images',
    size: int = 1,
  ):
    """Starts the clock.

    Args:
      title: What is counted, at the beginning of each line.
      total: At how many it is done.
      done: Of these, done before.
      unit: Of the rate.
      size: Units in each that is counted, such as images of a step.
    """
    self._title, self._unit, self._size = title, unit, size
    self._total, self._done, self._before = total, done, done
    self._start = self._last = time.monotonic()
    self._since = 0  # counted since the last line

  @property
  def seconds(self) -> float:
    """Since the start, without pauses."""
    return time.monotonic() - self._start

  @property
  def interval(self) -> float:
    """Seconds since the last line, without pauses; never 0."""
    return max(time.monotonic() - self._last, 1e-9)

  @property
  def rate(self) -> float:
    """Units a second since the last line."""
    return self._since * self._size / self.interval

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside out of rates and times."""
    begin = time.monotonic()
    try:
      yield
    finally:
      pause = time.monotonic() - begin
      self._start += pause
      self._last += pause

  def advance(self, count: int = 1) -> None:
    """Counts without a line."""
    self._done += count
    self._since += count

  def tick(self, count: int = 1, note: str = '') -> None:
    """Counts; logs where five seconds have passed, and at the end."""
    self.advance(count)
    if self.interval >= _INTERVAL or self._done >= self._total:
      self.log(note)

  def log(self, note: str = '') -> None:
    """Logs a line, with a note in its middle, and begins a new interval."""
    logging.info(
      '%s %*d/%d  %s%s',
      *(self._title, len(str(self._total)), self._done, self._total),
      *(f'{note}  ' if note else '', self._times()),
    )
    self._last, self._since = time.monotonic(), 0

  def _times(self) -> str:
    rate, left = self.rate, self._total - self._done
    if left <= 0:
      seconds = max(self.seconds, 1e-9)
      rate = (self._done - self._before) * self._size / seconds
      return f'{rate:.1f} {self._unit}/s  in {_clock(seconds)}'
    eta = _clock(left * self._size / rate) if rate else '-'
    return f'{rate:.1f} {self._unit}/s  ETA {eta}'


def _clock(seconds: float) -> datetime.timedelta:
  return datetime.timedelta(seconds=round(seconds))
