"""How a run is getting on: means since the last line, speed, time left."""

import contextlib
import datetime
import os
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from emanet_jax.errors import UserError
from emanet_jax.state.train_state import TrainState, is_finite


def _diverged(step: int, what: str) -> UserError:
  """The error to raise of a run whose numbers are none any more."""
  return UserError(
    f'training diverged at step {step}: {what}. Checkpoints of earlier steps '
    'are intact. Look at the data, or start in a new --workdir with a lower '
    'optimizer.learning_rate.'
  )


class Progress:
  """Collects the metrics of steps without waiting for the device.

  Metrics stay on the device until `report`, which waits for them; that is also
  where a loss that is no number is noticed, so nothing is saved before it.
  """

  def __init__(self, steps: int, batch_size: int):
    self._steps, self._batch_size = steps, batch_size
    self._pending: list[tuple[int, dict]] = []
    self._waited = 0.0
    self._start = time.monotonic()

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Counts the time inside as time without work for the device."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time inside (evaluation, saving) out of the speed."""
    start = time.monotonic()
    yield
    self._start += time.monotonic() - start

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes a step's scalar metrics, still being computed."""
    self._pending.append((step, metrics))

  def check(
    self, state: TrainState | None = None
  ) -> list[dict[str, np.ndarray]]:
    """Waits for the steps since the last report and returns their metrics.

    Args:
      state: After the last step, to be looked at as well, which costs the time
        of reading it all.

    Raises:
      UserError: A loss, a gradient or a part of the state that is NaN or
        infinite, and at which step that was seen.
    """
    pending = jax.device_get(self._pending)
    for step, metrics in pending:
      bad = {k: float(v) for k, v in metrics.items() if not np.isfinite(v)}
      if bad:
        raise _diverged(step, ', '.join(f'{k} is {v}' for k, v in bad.items()))
    if state is not None:
      with self.paused():
        if not is_finite(state):
          raise _diverged(
            int(state.step), 'its state is not all finite numbers'
          )
    return [metrics for _, metrics in pending]

  def report(self, learning_rate: float) -> dict[str, float]:
    """Logs a line on the steps since the last one, and returns its values.

    Raises:
      UserError: As `check`.
    """
    values = self.check()
    step = self._pending[-1][0]
    now = time.monotonic()
    seconds = max(now - self._start, 1e-9)
    per_step = seconds / len(values)
    result = {
      **{k: float(np.mean([v[k] for v in values])) for k in values[0]},
      'learning_rate': learning_rate,
      'images_per_second': self._batch_size / per_step,
      'data_wait': self._waited / seconds,
    }
    eta = datetime.timedelta(seconds=round((self._steps - step) * per_step))
    logging.info(
      'step %*d/%d  loss %.4f  lr %.2e  %.1f images/s  data wait %.0f%%  '
      'ETA %s',
      len(str(self._steps)),
      step,
      self._steps,
      result['loss'],
      learning_rate,
      result['images_per_second'],
      100 * result['data_wait'],
      eta,
    )
    self._pending, self._waited, self._start = [], 0.0, now
    return result


def log_own_progress() -> None:
  """Shows this package's progress, and of libraries only warnings."""
  own = os.path.dirname(os.path.realpath(__file__)) + os.sep
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelname != 'INFO'
      or os.path.realpath(record.pathname).startswith(own)
    )
  )
