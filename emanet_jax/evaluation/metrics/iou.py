"""Intersection over union, equal to the authors' figures to the last bit."""

import numpy as np
from jaxtyping import Int64

from emanet_jax.evaluation.metrics import Measure, Metric, mean_of_defined


def create() -> Measure:
  """The metric; it has no options."""
  return measure


def measure(confusion: Int64[np.ndarray, 'classes classes']) -> Metric:
  """IoU of each class, nan where it is neither labelled nor predicted.

  mIoU is the mean over the classes that occur; fIoU weighs them by their share
  of the labelled pixels. A class that is only predicted has IoU 0 but no
  share: it counts in mIoU and not in fIoU, as in the authors' code.
  """
  right, labelled = np.diag(confusion), confusion.sum(1)
  total = labelled.sum()
  with np.errstate(divide='ignore', invalid='ignore'):
    iou = right / (labelled + confusion.sum(0) - right)
    share = labelled / total
  # A class without labelled pixels has no share, and maybe no IoU.
  frequent = (share[share > 0] * iou[share > 0]).sum() if total else np.nan
  return Metric(
    {'mIoU': mean_of_defined(iou), 'fIoU': float(frequent)}, {'IoU': iou}
  )
