"""Scores of a confusion matrix, one file each.

A metric file holds `create(*, option=default, …) -> measure`, with

  measure(confusion) -> Metric

where confusion is int64 [classes, classes], pixel counts ≥ 0, rows = label,
columns = prediction. Every file has a section of its name in
`config.eval.metrics`, with its options and `enabled`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float64

from emanet_jax import parts
from emanet_jax.errors import UserError

_FIRST = 'iou'  # the field's main score leads


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
  """What one metric says; fractions, nan where nothing defines them.

  Attributes:
    summary: Scores of the whole split, by name.
    per_class: Scores of each class, by name.
  """

  summary: Mapping[str, float]
  per_class: Mapping[str, Float64[np.ndarray, ' classes']]


Measure = Callable[[np.ndarray], Metric]


def create_metrics(
  sections: ml_collections.ConfigDict | Mapping[str, Mapping[str, Any]],
) -> dict[str, Measure]:
  """The enabled metrics by name, mean IoU's first.

  Args:
    sections: Options by name of the metric, and `enabled`.

  Raises:
    UserError: An unknown name or option, or an impossible value.
  """
  created = {}
  for name in sorted(sections, key=lambda name: (name != _FIRST, name)):
    options = dict(sections[name])
    enabled = options.pop('enabled', True)
    measure = parts.METRICS.create(name, **options)
    if enabled:
      created[name] = measure
  if not created:
    raise UserError(
      'every eval.metrics.….enabled is False; enable one of '
      f'{", ".join(parts.METRICS.names())}'
    )
  return created


def mean_of_defined(values: np.ndarray) -> float:
  """The mean without nan; nan where nothing is left (nanmean would warn)."""
  return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
