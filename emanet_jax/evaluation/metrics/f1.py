"""F1, the harmonic mean of precision and recall; also called Dice."""

import numpy as np
from jaxtyping import Int64

from emanet_jax.evaluation.metrics import Measure, Metric, mean_of_defined


def create() -> Measure:
  """The metric; it has no options."""
  return measure


def measure(confusion: Int64[np.ndarray, 'classes classes']) -> Metric:
  """2 TP / (2 TP + FP + FN) of each class, nan as IoU; mF1 is the mean.

  F1 is 2 IoU / (1 + IoU), so it ranks classes alike; their means may differ.
  """
  right = np.diag(confusion)
  with np.errstate(invalid='ignore'):
    f1 = 2 * right / (confusion.sum(0) + confusion.sum(1))
  return Metric({'mF1': mean_of_defined(f1)}, {'F1': f1})
