"""The metrics of training's steps, collected without waiting for the device."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from emanet_jax.errors import UserError
from emanet_jax.runtime.progress import Progress
from emanet_jax.state.train_state import TrainState, is_finite


class DivergedError(UserError):
  """A loss, a gradient or a state that is no longer a number."""


class StepMetrics:
  """Holds the metrics of the steps since the last line of the log.

  They stay on the device until `check` or `report`, which wait for them; that
  is also where a loss that is no number is noticed, so nothing is saved before
  it.
  """

  def __init__(self, progress: Progress):
    """Starts with none.

    Args:
      progress: Counts the steps and writes the lines.
    """
    self._progress = progress
    self._pending: list[tuple[int, dict]] = []
    self._waited = 0.0

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Counts the time inside as time without work for the device."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes a step's scalar metrics, still being computed."""
    self._pending.append((step, metrics))
    self._progress.advance()

  def check(
    self, state: TrainState | None = None
  ) -> list[dict[str, np.ndarray]]:
    """Waits for the steps since the last report and returns their metrics.

    Args:
      state: After the last step, to be looked at as well, which costs the time
        of reading it all.

    Raises:
      DivergedError: A loss, a gradient or a part of the state that is NaN or
        infinite, and at which step that was seen.
    """
    pending = jax.device_get(self._pending)
    for step, metrics in pending:
      bad = {k: float(v) for k, v in metrics.items() if not np.isfinite(v)}
      if bad:
        raise _diverged(step, ', '.join(f'{k} is {v}' for k, v in bad.items()))
    if state is not None:
      with self._progress.paused():
        if not is_finite(state):
          raise _diverged(
            int(state.step), 'its state is not all finite numbers'
          )
    return [metrics for _, metrics in pending]

  def report(self, learning_rate: float) -> dict[str, float]:
    """Logs a line on the steps since the last one, and returns its values.

    Raises:
      DivergedError: As `check`.
    """
    values = self.check()
    means = {k: float(np.mean([v[k] for v in values])) for k in values[0]}
    data_wait = self._waited / self._progress.interval
    result = {
      **means,
      'learning_rate': learning_rate,
      'images_per_second': self._progress.rate,
      'data_wait': data_wait,
    }
    self._progress.log(
      f'loss {means["loss"]:.4f}  lr {learning_rate:.2e}  data wait '
      f'{100 * data_wait:.0f}%'
    )
    self._pending, self._waited = [], 0.0
    return result


def _diverged(step: int, what: str) -> DivergedError:
  """The error to raise of a run whose numbers are none any more."""
  return DivergedError(
    f'training diverged at step {step}: {what}. Checkpoints of earlier steps '
    'are intact. Look at the data, or start in a new --workdir with a lower '
    'optimizer.learning_rate.'
  )
