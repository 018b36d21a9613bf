"""Examples to endless training batches that can be stopped and gone on with."""

import functools
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from emanet_jax.errors import UserError


class TrainIterator:
  """Batches of one process; made by `pipeline.train_iterator`.

  All processes together take the examples in order, one after the other in
  turn, so that a position says where each of them is, whatever their number.
  """

  def __init__(
    self,
    examples: grain.MapDataset,
    *,
    batch_size: int,
    process_index: int,
    process_count: int,
    read_options: grain.ReadOptions,
    made_with: dict[str, Any],
  ):
    """Starts at the first example.

    Args:
      examples: Endless; dicts of arrays of the same shapes.
      batch_size: Examples of a batch over all processes.
      process_index: This process.
      process_count: Number of processes, a divisor of batch_size.
      read_options: Threads, and how many batches they make ahead.
      made_with: All that the examples follow from, as JSON holds it.
    """
    self._examples, self._batch_size = examples, batch_size
    self._process = process_index, process_count
    self._read_options, self._made_with = read_options, made_with
    self._batches = self._start_at(0)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = next(self._batches)
    self._position += self._batch_size
    return batch

  def get_state(self) -> dict[str, Any]:
    """The same on every process, and as JSON holds it.

    Returns:
      'position': examples that all processes together have taken; 'made_with':
      what else the batches follow from.
    """
    return {'position': self._position, 'made_with': self._made_with}

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes to where an iterator over the same batches stood.

    Args:
      state: From `get_state`, with any number of threads, processes and
        examples in a batch.

    Raises:
      UserError: It is of other data or another transform; names each
        difference, with both values.
    """
    then, now = _as_today(state.get('made_with', {})), self._made_with
    differing = [
      f'  {key}: then {then.get(key, "(absent)")!r}, now '
      f'{now.get(key, "(absent)")!r}'
      for key in sorted(then.keys() | now.keys())
      if then.get(key) != now.get(key)
    ]
    if differing:
      raise UserError(
        'the batches so far were made from other data or by another '
        'transform:\n'
        + '\n'.join(differing)
        + '\nSet these values back (for num_examples, fingerprint and classes '
        'data.data_dir, to the set prepared then), or use another --workdir.'
      )
    self.close()
    self._batches = self._start_at(state['position'])

  def close(self) -> None:
    """Stops the reading threads; only `set_state` starts them again."""
    self._batches.close()

  def _start_at(self, position: int) -> grain.DatasetIterator:
    self._position = position
    index, count = self._process
    # This process's turn of every `count` examples, from the position on.
    examples = self._examples[position + index :: count]
    size = self._batch_size // count
    batch = functools.partial(_batch, examples, size)
    batches = grain.MapDataset.range(len(examples) // size).map(batch)
    return iter(batches.to_iter_dataset(self._read_options))


def _as_today(made_with: dict[str, Any]) -> dict[str, Any]:
  """What a checkpoint's batches were made with, in the keys of today.

  Changes of colour once stood beside the crop's options; what is switched off
  is left out.
  """
  if 'augmentations' in made_with or not made_with:
    return made_with
  keys = ('brightness', 'contrast', 'saturation', 'hue', 'blur')
  color = {key: made_with.get(key, 0.0) for key in keys}
  rest = {k: v for k, v in made_with.items() if k not in keys}
  return {
    **rest,
    'rotation': made_with.get('rotation', 0.0),
    'augmentations': {'color': color} if any(color.values()) else {},
  }


def _batch(
  examples: grain.MapDataset, size: int, index: int
) -> dict[str, np.ndarray]:
  """Puts examples in their places one by one.

  Grain's own batching keeps them all until it copies them; for crops of such a
  size, fetching that much new memory takes longer than making their content.
  """
  batch: dict[str, np.ndarray] = {}
  for place in range(size):
    for key, value in examples[index * size + place].items():
      if key not in batch:
        batch[key] = np.empty((size, *value.shape), value.dtype)
      batch[key][place] = value
  return batch
