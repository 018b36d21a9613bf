"""What every data set shares: the TFDS builder and its record format.

A data set is prepared once: photos and labels are read from the publisher's
layout, checked, and written as ArrayRecord. Training then reads records that
are known to be sound, in one format whatever the benchmark.
"""

import abc
import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from emanet_jax.data.reading import checks, labels
from emanet_jax.data.reading.example import Example, Item
from emanet_jax.data.reading.files import File, Files
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError

_NUM_THREADS = os.cpu_count() or 1
_SHARD_BYTES = 256 << 20  # of photos; TFDS keeps a shard in memory


class ReadingError(Exception):
  """A fault of this program, met while it read an example: nothing to mend.

  Of no type that the writing of records raises, for which it would be taken.
  """


class Statistics(Protocol):
  """What is told of each example; `preparation.statistics` collects it."""

  def add(
    self,
    split: str,
    size: tuple[int, int],
    counts: np.ndarray,
    digest: bytes,
  ) -> None:
    """Takes a good example: its size, pixels a label, and digest."""

  def add_bad(self, split: str, error: UserError) -> None:
    """Takes what is wrong with a bad one; raises it when it is too many."""


class SegmentationBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
  """TFDS builder of a segmentation set; a data set fills in the gaps.

  A subclass is called `Builder`, sets `name`, `SPEC` and `VERSION`, and says in
  `find` which examples each split has. It overrides `read_label` where labels
  are no class indices yet, or `read` where an example is no pair of files.

  Sharded by the builder and not by TFDS, which above 1 GB would need
  TensorFlow and twice the disk.
  """

  SPEC: ClassVar[DatasetSpec]
  # Nothing is downloaded, so there are no checksums to look for; the search
  # would also need importlib_resources, which TFDS 4.9.10 forgets to require.
  url_infos: ClassVar[dict[str, Any]] = {}

  # Set by `emanet_jax.data.preparation.prepare` before anything is generated.
  spec: DatasetSpec
  found: Mapping[str, Sequence[Any]]
  statistics: Statistics

  @abc.abstractmethod
  def find(self, files: Files | None) -> Mapping[str, Sequence[Any]]:
    """Lists the examples of every split present on disk.

    A set without fixed classes puts what it finds into `self.spec`.

    Args:
      files: What the user has; None when nothing is needed.

    Returns:
      Split name to what `read` takes, in the published order. A split whose
      list or folder is absent is left out.

    Raises:
      UserError: The files lie in another layout, or some are missing.
    """

  def read(self, item: Any) -> Example:
    """Reads one example; raises UserError for a file that cannot be read."""
    label = None if item.label is None else self.read_label(item.label)
    return Example(
      item.id,
      item.image.read(),
      label,
      item.image.where,
      item.label.where if item.label else '',
    )

  def read_label(self, file: File) -> UInt8[np.ndarray, 'h w']:
    """Reads a label as uint8 [h, w] with classes 0..C-1 and 255."""
    return labels.read_index_png(file)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{self.SPEC.name}: semantic segmentation, '
      f'{IGNORE_LABEL} = ignored.',
      features=tfds.features.FeaturesDict(
        {
          'id': tfds.features.Text(),
          'image': tfds.features.Image(shape=(None, None, 3)),
          'label': tfds.features.Image(
            shape=(None, None, 1), encoding_format='png'
          ),
        }
      ),
      homepage=self.SPEC.homepage,
      citation=self.SPEC.citation,
      license=self.SPEC.licence,
      # Evaluation then reports in the published order.
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _log_download_bytes(self) -> None:
    """Keeps TFDS from announcing a download, which there is none of."""

  def _log_download_done(self) -> None:
    """As above."""

  def _shard_iterators_per_split(
    self, dl_manager: Any
  ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
    """Every split as shards of its one stream of examples; see TFDS."""
    shards = {}
    for split, items in self.found.items():
      stream = self._examples(split, items)
      shards[split] = [
        functools.partial(_some, stream, length) for length in _lengths(items)
      ]
    return shards

  def _examples(
    self, split: str, items: Sequence[Any]
  ) -> Iterator[tuple[int, dict[str, Any]] | None]:
    """Reads items in threads, in order; yields None for a bad one."""
    ready = (
      grain.MapDataset.source(items)
      .map(self._read_and_check)
      .to_iter_dataset(grain.ReadOptions(_NUM_THREADS, 4 * _NUM_THREADS))
    )
    for index, result in enumerate(ready):
      if isinstance(result, UserError):
        self.statistics.add_bad(split, result)
        yield None
      else:
        self.statistics.add(split, result.size, result.counts, result.digest)
        yield index, result.record

  def _read_and_check(self, item: Any) -> 'UserError | _Checked':
    try:
      example = self.read(item)
      size, counts = checks.check_example(self.spec, example)
    except UserError as error:
      return error
    except Exception as error:
      raise ReadingError(f'{self.spec.name}: {item}') from error
    label = example.label
    if label is None:  # one record format, with labels or without
      label = np.full(size, IGNORE_LABEL, np.uint8)
    record = {
      'id': example.id,
      'image': example.image,
      'label': labels.encode_png(label),
    }
    return _Checked(record, size, counts, _digest(example, label))


@dataclasses.dataclass(frozen=True)
class _Checked:
  record: dict[str, Any]
  size: tuple[int, int]
  counts: np.ndarray
  digest: bytes


def _digest(example: Example, label: np.ndarray) -> bytes:
  """Of the pixels, since the PNG is another by each version of OpenCV."""
  digest = hashlib.sha256()
  for part in (example.id.encode(), example.image, np.ascontiguousarray(label)):
    digest.update(hashlib.sha256(part).digest())
  return digest.digest()


def _some(stream: Iterator, length: int) -> Iterator:
  """The next examples of a stream, without the bad ones."""
  return (e for e in itertools.islice(stream, length) if e is not None)


def _lengths(items: Sequence[Any]) -> list[int]:
  """Numbers of items that make shards of about equal size."""
  sizes = [i.image.size or 0 for i in items if isinstance(i, Item)]
  shards = max(1, min(len(items), round(sum(sizes) / _SHARD_BYTES)))
  ends = [len(items) * i // shards for i in range(shards + 1)]
  return [b - a for a, b in itertools.pairwise(ends)]
