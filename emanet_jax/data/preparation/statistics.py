"""What a preparation met: counts, classes, sizes, and files that were bad."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.runtime.progress import Progress

_SIDE = 128  # pixels of the longer side that a bin of the histogram spans


@dataclasses.dataclass
class _Split:
  images: int = 0
  counts: Int[np.ndarray, '256'] = dataclasses.field(
    default_factory=lambda: np.zeros(256, np.int64)
  )
  largest: tuple[int, int] = 0, 0
  longer_sides: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  fingerprint: Any = dataclasses.field(default_factory=hashlib.sha256)


class Statistics:
  """Collects while a data set is prepared, logs progress, and reports.

  Args:
    spec: The data set.
    totals: Split name to the number of its items.
    max_bad_share: Of all items, in [0, 1]; 0 stops at the first bad one, else
      one at least is tolerated.
  """

  def __init__(
    self, spec: DatasetSpec, totals: Mapping[str, int], max_bad_share: float
  ):
    self.bad: list[str] = []
    self._spec, self._totals = spec, totals
    self._tolerant = max_bad_share > 0
    self._max_bad = max(1, int(max_bad_share * sum(totals.values())))
    self._splits = {split: _Split() for split in totals}
    self._progress = Progress(f'preparing {spec.name}', sum(totals.values()))

  def add(
    self,
    split: str,
    size: tuple[int, int],
    counts: Int[np.ndarray, '256'],
    digest: bytes = b'',
  ) -> None:
    """Counts a good example, in the order in which it is stored.

    Args:
      split: Its split.
      size: Height and width.
      counts: Pixels a label.
      digest: Of all that is stored of it.
    """
    state = self._splits[split]
    state.images += 1
    state.counts += counts
    state.largest = tuple(map(max, state.largest, size))
    state.longer_sides[max(size) // _SIDE] += 1
    state.fingerprint.update(digest)
    self._progress.tick(note=split)

  def add_bad(self, split: str, error: UserError) -> None:
    """Notes a bad example.

    Raises:
      UserError: It is one too many; the error itself where none is tolerated.
    """
    if not self._tolerant:
      raise error
    self.bad.append(f'{split}: {error}')
    self._progress.tick(note=split)
    if len(self.bad) > self._max_bad:
      first = '\n'.join(f'  {line}' for line in self.bad[:20])
      raise UserError(
        f'{self._spec.name}: more than {self._max_bad} of '
        f'{sum(self._totals.values())} examples are bad, the most that '
        f'--max_bad_share allows. The first are:\n{first}'
      )

  def check(self) -> None:
    """Raises a UserError when a split has ended without a sound example."""
    for split, state in self._splits.items():
      if not state.images:
        last = '\n'.join(f'  {line}' for line in self.bad[-20:])
        raise UserError(
          f'{self._spec.name}: no example of {split} is sound:\n{last}'
        )

  def counts(self) -> dict[str, int]:
    """Good examples of each split so far."""
    return {name: split.images for name, split in self._splits.items()}

  def report(self) -> dict[str, Any]:
    """Everything collected, as JSON can hold it.

    Returns:
      'seconds', 'bad' (messages), and 'splits': name to 'images', 'pixels'
      (class name to share of all pixels), 'ignored' (share), 'largest'
      (greatest height, greatest width), 'longer_side' (pixels, 'from–to', to
      images) and 'fingerprint' (SHA-256 over ids, photos and labels in order).
    """
    return {
      'seconds': round(self._progress.seconds, 1),
      'bad': self.bad,
      'splits': {
        name: _split_report(split, self._spec.classes)
        for name, split in self._splits.items()
      },
    }


def _split_report(split: _Split, classes: Sequence[str]) -> dict[str, Any]:
  shares = split.counts / max(1, split.counts.sum())
  return {
    'images': split.images,
    'pixels': dict(zip(classes, shares.tolist(), strict=False)),
    'ignored': float(shares[IGNORE_LABEL]),
    'largest': list(split.largest),
    'longer_side': {
      f'{_SIDE * b}–{_SIDE * (b + 1) - 1}': split.longer_sides[b]
      for b in sorted(split.longer_sides)
    },
    'fingerprint': split.fingerprint.hexdigest(),
  }


def format_report(report: Mapping[str, Any]) -> str:
  """Returns a report as lines of text."""
  lines = []
  for name, split in report['splits'].items():
    present = sorted(
      ((share, c) for c, share in split['pixels'].items() if share > 0),
      reverse=True,
    )
    absent = [c for c, share in split['pixels'].items() if share == 0]
    sizes = ', '.join(f'{k}: {v}' for k, v in split['longer_side'].items())
    lines += [
      f'{name}: {split["images"]} images within '
      f'{"×".join(map(str, split["largest"]))} (height × width); longer side '
      f'in pixels {sizes}',
      f'  {len(present)} classes of {len(split["pixels"])}: '
      + ', '.join(f'{c} {100 * share:.2f} %' for share, c in present),
      f'  ignored: {100 * split["ignored"]:.2f} % of the pixels',
    ]
    if absent and present:
      lines.append(f'  absent: {", ".join(absent)}')
  if report['bad']:
    lines.append(f'{len(report["bad"])} bad examples left out:')
    lines += [f'  {line}' for line in report['bad']]
  return '\n'.join(lines)
