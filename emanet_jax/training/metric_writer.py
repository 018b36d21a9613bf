"""Keeps a run's figures: one JSON line a record, and TensorBoard scalars.

The JSON lines are the record of the run, complete to the last line even when
the process is killed; TensorBoard's files are a view of the same figures that
may lag some seconds; in a bucket, until the next record after those.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat

import tensorboardX

from emanet_jax import errors
from emanet_jax.runtime import atomic, places
from emanet_jax.runtime.bucket_files import GrowingFile, UploadedFolder
from emanet_jax.runtime.places import AnyPath

_FILE_NAME = 'metrics.jsonl'
_SPLITS = ('train', 'eval')
_OWN_KEYS = frozenset({'step', 'split', 'time'})
# TensorBoard's events wait in memory so long; a killed run loses that much.
_TENSORBOARD_FLUSH_SECONDS = 10


class MetricWriter:
  """Writes a run's figures; a context manager, one per run and folder.

  With several hosts exactly one of them (process 0) should make a writer.

  Attributes:
    directory: the run's folder; made when absent. Holds metrics.jsonl and the
      folder tensorboard/.
  """

  def __init__(
    self, directory: str | os.PathLike[str], step: int | None = None
  ):
    """Opens the files and takes back what a restarted run will write again.

    Args:
      directory: the run's folder.
      step: last step of the checkpoint that the run goes on from, 0 for a run
        from the start: records beyond it are dropped. None keeps them all, for
        a tool that only adds records.

    Raises:
      UserError: the folder's metrics.jsonl holds a line that no writer wrote.
    """
    self.directory = places.as_path(directory)
    self.directory.mkdir(parents=True, exist_ok=True)
    path = self.directory / _FILE_NAME
    _drop_beyond(path, step)
    events, self._uploaded = self.directory / 'tensorboard', None
    if places.is_bucket(path):
      self._uploaded = UploadedFolder(events)
      self._upload_at = 0.0
      events, self._file = self._uploaded.path, GrowingFile(path)
    else:
      self._file = path.open('a', encoding='utf-8')
    self._tensorboard = tensorboardX.SummaryWriter(
      str(events),
      # TensorBoard hides this step itself too, hence the first one redone.
      purge_step=None if step is None else step + 1,
      flush_secs=_TENSORBOARD_FLUSH_SECONDS,
      # The default name ends in seconds: a quick restart would overwrite the
      # file of the run before it.
      filename_suffix=f'.{time.time_ns()}',
    )

  def __enter__(self) -> 'MetricWriter':
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def write(
    self, step: int, split: str, values: Mapping[str, SupportsFloat]
  ) -> None:
    """Appends one record.

    Args:
      step: the training step that the figures belong to, ≥ 0.
      split: 'train' or 'eval'.
      values: scalars by name: Python, NumPy or JAX ones. A value that is not
        finite becomes null in metrics.jsonl (JSON has no nan) and stays itself
        in TensorBoard, which marks it.

    Raises:
      ValueError: an unknown split, or a name that the record itself uses.
    """
    if split not in _SPLITS:
      raise ValueError(f'split is {split!r}, expected one of {_SPLITS}')
    if taken := _OWN_KEYS & values.keys():
      raise ValueError(f'values may not be named {sorted(taken)}: rename them')
    floats = {name: float(value) for name, value in values.items()}
    now = time.time()
    record = {'step': step, 'split': split, 'time': round(now, 3)}
    for name, value in floats.items():
      record[name] = value if math.isfinite(value) else None
      self._tensorboard.add_scalar(
        f'{split}/{name}', value, global_step=step, walltime=now
      )
    self._file.write(json.dumps(record, allow_nan=False) + '\n')
    self._file.flush()
    if self._uploaded and now >= self._upload_at:
      self._tensorboard.flush()
      self._uploaded.upload()
      self._upload_at = now + _TENSORBOARD_FLUSH_SECONDS

  def close(self) -> None:
    """Writes out what waits and ends TensorBoard's thread; may be repeated."""
    self._file.close()
    self._tensorboard.close()
    if self._uploaded:
      self._uploaded.close()


class _SilentWriter:
  """Stands in for a writer on processes that write nothing."""

  def __enter__(self) -> '_SilentWriter':
    return self

  def __exit__(self, *exception: object) -> None:
    pass

  def write(
    self, step: int, split: str, values: Mapping[str, SupportsFloat]
  ) -> None:
    """Drops a record."""


def open_writer(
  directory: str | os.PathLike[str], step: int | None, *, writes: bool
) -> MetricWriter | _SilentWriter:
  """The writer of a process.

  Args:
    directory: See `MetricWriter`.
    step: See `MetricWriter`.
    writes: Whether this process is the one that writes.
  """
  return MetricWriter(directory, step) if writes else _SilentWriter()


def read_metrics(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the records of a run, finished or still writing.

  Args:
    directory: the run's folder, as given to `MetricWriter`.

  Returns:
    The records in the order written: 'step' (int), 'split' ('train' or
    'eval'), 'time' (seconds since 1970) and the values by name (float, or None
    for one that was not finite). A last line still incomplete is left out.

  Raises:
    UserError: there is no metrics.jsonl, or it holds a line that is no record.
  """
  path = places.as_path(directory) / _FILE_NAME
  if not path.is_file():
    raise errors.UserError(
      f'{path} does not exist; expected the folder of a run that was started '
      'here: check the path'
    )
  return _parse(path)


def evaluated_scores(
  directory: str | os.PathLike[str], until: int
) -> dict[int, float]:
  """MIoU of a run's evaluated steps; the same on every host.

  Args:
    directory: the run's folder; without metrics there are none.
    until: the last step that counts. After 0 nothing is read: a first run's
      process 0 may be about to make the file.

  Returns:
    Step to mIoU as a fraction, nan where the record has none.

  Raises:
    UserError: metrics.jsonl holds a line that is no record.
  """
  if not until or not (places.as_path(directory) / _FILE_NAME).exists():
    return {}
  found = {}
  for record in read_metrics(directory):
    if record['split'] == 'eval' and record['step'] <= until:
      miou = record.get('mIoU')
      found[record['step']] = math.nan if miou is None else miou
  return found


def _parse(path: AnyPath) -> list[dict[str, Any]]:
  """Parses all lines of a file but a torn last one."""
  lines = path.read_bytes().decode('utf-8', 'replace').splitlines()
  records = []
  for number, line in enumerate(lines, start=1):
    try:
      record = json.loads(line)
      if not isinstance(record, dict) or not record.keys() >= _OWN_KEYS:
        raise ValueError('not a record')
    except ValueError as error:
      if number == len(lines):
        break  # A kill in the middle of a write left it.
      raise errors.UserError(
        f'{path}, line {number} is {line[:60]!r}, expected a JSON object with '
        f'{sorted(_OWN_KEYS)}: remove the line or move the file away'
      ) from error
    records.append(record)
  return records


def _drop_beyond(path: AnyPath, step: int | None) -> None:
  """Rewrites a file without a torn last line, doubles, and what is beyond step.

  Two runs on one folder, which nothing kept apart once, wrote each step twice.
  """
  try:  # `exists` of a bucket would hide that nobody can tell
    before = path.read_bytes()
  except FileNotFoundError:
    return
  records = {(r['split'], r['step']): r for r in _parse(path)}
  kept = [r for r in records.values() if step is None or r['step'] <= step]
  text = ''.join(json.dumps(record) + '\n' for record in kept)
  if text.encode() == before:
    return
  # Replaced in one move: a kill here leaves the old file or the new one.
  atomic.write(path, text)
