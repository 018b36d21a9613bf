"""Batches on the devices before they are needed."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from emanet_jax.data.input.iterator import TrainIterator
from emanet_jax.runtime.sharding import global_batch


class DevicePrefetch:
  """Global batches, each loaded while the step before it runs.

  A thread takes the next batch and puts it on the devices as soon as one is
  handed out, whatever the caller waits for meanwhile. At most two are on the
  devices: the one in use and the next.
  """

  def __init__(
    self, source: TrainIterator, mesh: jax.sharding.Mesh, count: int
  ):
    """Starts to load the first batch.

    Args:
      source: The input; nobody else may use it any more.
      mesh: Of the devices that share a batch.
      count: Batches that will be taken; no more are loaded.
    """
    self._source, self._mesh, self._left = source, mesh, count
    self._state = source.get_state()
    self._thread = ThreadPoolExecutor(1, 'device-prefetch')
    self._next = self._load_ahead()

  def __iter__(self) -> Iterator[dict[str, jax.Array]]:
    return self

  def __next__(self) -> dict[str, jax.Array]:
    """The next batch; waits until it is on its way to the devices."""
    if self._next is None:
      raise StopIteration
    batch, self._state = self._next.result()
    self._next = self._load_ahead()
    return batch

  def ready(self) -> bool:
    """Whether the next batch is there without waiting."""
    return self._next is not None and self._next.done()

  def get_state(self) -> dict[str, Any]:
    """The source's state as of the last batch taken, not of one ahead."""
    return self._state

  def close(self) -> None:
    """Waits for the batch being loaded, if any, and stops the thread."""
    self._thread.shutdown(cancel_futures=True)

  def _load_ahead(self) -> Future | None:
    self._left -= 1
    return self._thread.submit(self._load) if self._left >= 0 else None

  def _load(self) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    batch = global_batch(next(self._source), self._mesh)
    return batch, self._source.get_state()
