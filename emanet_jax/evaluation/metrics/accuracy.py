"""Shares of pixels that are right."""

import numpy as np
from jaxtyping import Int64

from emanet_jax.evaluation.metrics import Measure, Metric, mean_of_defined


def create() -> Measure:
  """The metric; it has no options."""
  return measure


def measure(confusion: Int64[np.ndarray, 'classes classes']) -> Metric:
  """Accuracy of each class, nan where it is not labelled.

  pAcc is the share of all labelled pixels that are right, mAcc the mean over
  the labelled classes.
  """
  right, labelled = np.diag(confusion), confusion.sum(1)
  with np.errstate(invalid='ignore'):
    accuracy = right / labelled
    pixels = right.sum() / labelled.sum()
  return Metric(
    {'pAcc': float(pixels), 'mAcc': mean_of_defined(accuracy)},
    {'accuracy': accuracy},
  )
