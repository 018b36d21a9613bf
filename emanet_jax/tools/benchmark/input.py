"""How many training images a CPU second gives, and how that compares.

Three contenders take turns in one process: the training input as it is; the
decoding of the same records by as many threads, which nothing can beat; and the
authors' PyTorch input, where PyTorch is installed.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_collections

from emanet_jax.data.input import pipeline, transforms
from emanet_jax.data.input.pipeline import Dataset
from emanet_jax.tools.benchmark import torch_input
from emanet_jax.tools.benchmark.photos import InMemory
from emanet_jax.tools.benchmark.summary import shown, spread, versions

_ROUNDS = 5  # or more, of turns of two seconds

# Reads for so many seconds, and returns the number of images.
Contender = Callable[[float], int]
_PACKAGES = ('numpy', 'opencv-python-headless', 'grain', 'pillow', 'torch')


@dataclasses.dataclass(frozen=True)
class _Turn:
  """What a contender did in a round, and the seconds that it took."""

  images: int
  cpu: float  # of all threads
  wall: float


def measure(
  dataset: Dataset,
  config: ml_collections.ConfigDict,
  *,
  batch_size: int,
  seconds: float,
) -> dict[str, Any]:
  """Measures the training input.

  Args:
    dataset: A prepared one, or `photos.dataset_of`.
    config: The `data` part of a config.
    batch_size: Examples of a batch.
    seconds: Time to spend, besides some for warming up.

  Returns:
    As JSON holds it, each figure as [median, least, most] over the rounds:
    'rates', contender → images per 'cpu_second' and per 'wall_second';
    'ratios', of our rate per CPU second to the others'; 'first_batch_seconds',
    from nothing. Besides, 'input' describes what was read, and 'versions'.
  """
  source = dataset.source(config.train_split)
  ours = _Ours(dataset, source, config, batch_size)
  contenders = {
    'ours': ours.read,
    'decoding alone': _decoder(source, config.num_threads),
  }
  with contextlib.suppress(ImportError):
    contenders['PyTorch'] = torch_input.reader(
      source,
      batch_size,
      size=config.crop_size,
      scales=tuple(config.scales),
      flip=config.flip,
    )
  turns = _take_turns(contenders, seconds)
  cpu = {n: [t.images / t.cpu for t in turns[n]] for n in contenders}
  wall = {n: [t.images / t.wall for t in turns[n]] for n in contenders}
  return {
    'input': _describe(source, config, batch_size, ours.batch_bytes),
    'rates': {
      n: {'cpu_second': spread(cpu[n]), 'wall_second': spread(wall[n])}
      for n in contenders
    },
    'ratios': {
      n: spread([a / b for a, b in zip(cpu['ours'], cpu[n], strict=True)])
      for n in contenders
      if n != 'ours'
    },
    'first_batch_seconds': spread(ours.first_batch_seconds),
    'versions': versions(_PACKAGES),
  }


def table(result: dict[str, Any]) -> str:
  """What `measure` returned, to be read."""
  given = result['input']
  lines = [
    '{records} photos, {photo_bytes:.0f} bytes each; crop {crop_size}, batch '
    '{batch_size}, {threads} threads'.format(**given),
    f'{"":16}{"images / CPU second":>28}{"images / second":>28}',
  ]
  for name, rates in result['rates'].items():
    lines.append(
      f'{name:16}{shown(rates["cpu_second"], 1):>28}'
      f'{shown(rates["wall_second"], 1):>28}'
    )
  lines += [
    f'ours / {name}: {shown(ratio, 2)}'
    for name, ratio in result['ratios'].items()
  ]
  if 'PyTorch' not in result['rates']:
    lines.append('PyTorch is not installed: no comparison with the authors')
  lines.append(
    f'first batch after {shown(result["first_batch_seconds"], 3)} s; ahead '
    '{batches_ahead} batches of {batch_bytes:,} bytes'.format(**given)
  )
  lines.append(', '.join(f'{k} {v}' for k, v in result['versions'].items()))
  return '\n'.join(lines)


class _Ours:
  """The training input, from records to batches on the host."""

  def __init__(self, dataset, source, config, batch_size):
    self._dataset, self._source = dataset, source
    self._config, self._batch_size = config, batch_size
    self.first_batch_seconds: list[float] = []
    self.batch_bytes = 0

  def read(self, seconds: float) -> int:
    """Takes batches from a new iterator; the images made, those ahead too."""
    counted = _Counted(self._source)
    others = set(threading.enumerate())
    start = time.perf_counter()
    iterator = pipeline.train_iterator(
      InMemory(
        self._dataset.spec, pathlib.Path(), self._dataset.counts, counted
      ),
      self._config,
      batch_size=self._batch_size,
      seed=0,
    )
    batch = next(iterator)
    self.first_batch_seconds.append(time.perf_counter() - start)
    self.batch_bytes = sum(x.nbytes for x in batch.values())
    while time.perf_counter() < start + seconds:
      next(iterator)
    # What is begun gets finished, so that the time is that of the images.
    iterator.close()
    for thread in set(threading.enumerate()) - others:
      thread.join()
    return len(counted.reads)


class _Counted(Sequence):
  """Records, and which of them were read."""

  def __init__(self, records: Sequence[dict[str, bytes]]):
    self._records, self.reads = records, []

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, bytes]:
    self.reads.append(index)
    return self._records[index]


def _decoder(source: Sequence[dict[str, bytes]], num_threads: int) -> Contender:
  def read(seconds: float) -> int:
    end = time.perf_counter() + seconds

    def decode(first: int) -> int:
      for count in itertools.count():
        if time.perf_counter() > end:
          return count
        transforms.decode(source[(first + count * num_threads) % len(source)])

    with ThreadPoolExecutor(num_threads) as pool:
      return sum(pool.map(decode, range(num_threads)))

  return read


def _take_turns(
  contenders: dict[str, Contender], seconds: float
) -> dict[str, list[_Turn]]:
  """Rounds in which each contender has one turn, after a trial of each."""
  for read in contenders.values():
    read(0.1)
  rounds = max(_ROUNDS, int(seconds / len(contenders) / 2))
  turn = seconds / len(contenders) / rounds
  turns: dict[str, list[_Turn]] = {name: [] for name in contenders}
  for _ in range(rounds):
    for name, read in contenders.items():
      cpu, wall = time.process_time(), time.perf_counter()
      images = read(turn)
      turns[name].append(
        _Turn(images, time.process_time() - cpu, time.perf_counter() - wall)
      )
  return turns


def _describe(source, config, batch_size, batch_bytes) -> dict[str, Any]:
  sizes = [len(source[i]['image']) for i in range(min(len(source), 1000))]
  return {
    'records': len(source),
    'photo_bytes': statistics.mean(sizes),
    'crop_size': config.crop_size,
    'batch_size': batch_size,
    'threads': config.num_threads,
    'batch_bytes': batch_bytes,
    'batches_ahead': max(config.num_threads, config.prefetch),
  }
