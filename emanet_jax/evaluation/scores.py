"""All scores of a split together, as text and as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer

from emanet_jax import parts
from emanet_jax.evaluation.metrics import Measure, create_metrics


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of a split; fractions in [0, 1], nan where nothing defines them.

  Attributes:
    summary: Of the whole split, by name: mIoU, fIoU, pAcc, mAcc, mF1, ….
    per_class: By name, one for each class: IoU, accuracy, F1, ….
    share: Of each class, in the labelled pixels.
  """

  summary: Mapping[str, float]
  per_class: Mapping[str, Float64[np.ndarray, ' classes']]
  share: Float64[np.ndarray, ' classes']


def score(
  confusion: Integer[np.ndarray, 'classes classes'],
  metrics: Mapping[str, Measure] | None = None,
) -> Scores:
  """Scores a confusion matrix.

  Args:
    confusion: Pixel counts ≥ 0, rows = label, columns = prediction; sum the
      batches as int64, since a split of large images overflows int32.
    metrics: From `create_metrics`; None: all there are, with their defaults.

  Returns:
    The scores; all nan for a matrix without any pixel.
  """
  confusion = confusion.astype(np.int64)
  if metrics is None:
    metrics = create_metrics({name: {} for name in parts.METRICS.names()})
  found = [measure(confusion) for measure in metrics.values()]
  labelled = confusion.sum(1)
  with np.errstate(invalid='ignore'):
    share = labelled / labelled.sum()
  return Scores(
    {k: v for metric in found for k, v in metric.summary.items()},
    {k: v for metric in found for k, v in metric.per_class.items()},
    share,
  )


def table(scores: Scores, class_names: Sequence[str]) -> str:
  """Lays scores out for a terminal, in per cent.

  Args:
    scores: The scores of C classes.
    class_names: C names, in the order of the classes.

  Returns:
    Aligned lines: a row per class, then the scores of the split. '-' stands
    for a score that nothing defines.
  """
  columns = {**scores.per_class, 'pixels': scores.share}
  width = max(len('class'), *map(len, class_names))
  widths = [max(6, len(name)) for name in columns]
  titles = zip(columns, widths, strict=True)
  lines = [
    '  '.join([f'{"class":<{width}}', *(f'{t:>{w}}' for t, w in titles)])
  ]
  rule = '-' * len(lines[0])
  lines.append(rule)
  for name, *values in zip(class_names, *columns.values(), strict=True):
    cells = [f'{_percent(v):>{w}}' for v, w in zip(values, widths, strict=True)]
    lines.append('  '.join([f'{name:<{width}}', *cells]))
  lines.append(rule)
  for name, value in scores.summary.items():
    lines.append(f'{name:<{width}}  {_percent(value):>6}')
  return '\n'.join(lines)


def to_json(scores: Scores, class_names: Sequence[str]) -> dict[str, Any]:
  """Puts scores into plain types, ready for `json.dump(allow_nan=False)`.

  Args:
    scores: The scores of C classes.
    class_names: C names, in the order of the classes, each its own.

  Returns:
    The scores of the split by name, and 'per_class_NAME' for each score of
    classes: class name → value. Fractions in [0, 1]; None for nan, which JSON
    does not have.
  """
  result = {k: _none_for_nan(v) for k, v in scores.summary.items()}
  for key, values in scores.per_class.items():
    result[f'per_class_{key}'] = {
      name: _none_for_nan(value)
      for name, value in zip(class_names, values, strict=True)
    }
  return result


def _none_for_nan(value: float) -> float | None:
  return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
  return '-' if np.isnan(value) else f'{100 * value:.2f}'
