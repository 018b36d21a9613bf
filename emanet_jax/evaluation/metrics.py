"""Segmentation scores from one confusion matrix over a whole split.

The matrix of a batch is counted on the device, because a matrix is far smaller
than the label maps it replaces; batches are added up and scored on the host,
where 64-bit integers and floats are exact enough for any data set.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int32, Integer

from emanet_jax.array import Array


def confusion_matrix(
  label: Integer[Array, '*b h w'],
  prediction: Integer[Array, '*b h w'],
  num_classes: int,
  ignore_label: int = 255,
) -> Int32[Array, 'classes classes']:
  """Counts label/prediction pairs of a batch; jit with static num_classes.

  Counting beats the product of two one-hot maps: its cost does not grow with
  the number of classes (on a CPU 4x faster with 21 classes, 50x with 171), its
  integers are exact, and every image having its own histogram keeps a sharded
  batch where it is: only the summed matrix crosses devices. Per-image
  histograms also spread a GPU's atomic additions over more addresses.

  Args:
    label: true classes, any integer type.
    prediction: predicted classes, any integer type.
    num_classes: number of classes C, 1 ≤ C ≤ 46340.
    ignore_label: label of pixels that do not count; labels outside 0…C-1
      never count either, nor do predictions outside it: no cell is theirs.

  Returns:
    Pixel counts, rows = label, columns = prediction; exact up to 2^31 - 1
    pixels a batch (16 x 513 x 513 are 4.2 million).
  """
  height, width = label.shape[-2:]
  # Widened first: uint8 would overflow in the cell's number below.
  label = jnp.reshape(label, (-1, height * width)).astype(jnp.int32)
  prediction = jnp.reshape(prediction, label.shape).astype(jnp.int32)
  counts = (label != ignore_label) & (label >= 0) & (label < num_classes)
  counts &= (prediction >= 0) & (prediction < num_classes)
  # Pixels that do not count go to one more cell, cut off afterwards: shapes
  # stay static under jit.
  num_cells = num_classes**2
  cell = jnp.where(counts, label * num_classes + prediction, num_cells)
  count = jax.vmap(lambda c: jnp.bincount(c, length=num_cells + 1))
  hist = count(cell).sum(axis=0, dtype=jnp.int32)[:-1]
  return hist.reshape(num_classes, num_classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of a split; fractions in [0, 1], nan where nothing defines them.

  Attributes:
    mIoU: mean of `iou` over the classes that occur.
    pAcc: share of the labelled pixels that are right.
    mAcc: mean of `accuracy` over the labelled classes.
    fIoU: `iou` weighted by `share`.
    iou: per class, intersection over union of label and prediction; nan where
      the class is neither labelled nor predicted.
    accuracy: per class, share of its pixels that are right; nan where the class
      is not labelled.
    share: per class, its share of the labelled pixels.
  """

  mIoU: float
  pAcc: float
  mAcc: float
  fIoU: float
  iou: Float64[np.ndarray, ' classes']
  accuracy: Float64[np.ndarray, ' classes']
  share: Float64[np.ndarray, ' classes']

  def summary(self) -> dict[str, float]:
    """Returns the four scores of the split by name."""
    return {k: getattr(self, k) for k in ('mIoU', 'pAcc', 'mAcc', 'fIoU')}


def scores(hist: Integer[np.ndarray, 'classes classes']) -> Scores:
  """Scores a confusion matrix, equal to the authors' figures to the last bit.

  Args:
    hist: pixel counts ≥ 0, rows = label, columns = prediction; sum the batches
      as int64, since a split of large images overflows int32.

  Returns:
    The scores; all nan for a matrix without any pixel.
  """
  hist = hist.astype(np.int64)
  right, labelled, predicted = np.diag(hist), hist.sum(1), hist.sum(0)
  total = labelled.sum()
  with np.errstate(divide='ignore', invalid='ignore'):
    iou = right / (labelled + predicted - right)
    accuracy = right / labelled
    share = labelled / total
    pixel_accuracy = right.sum() / total
  # A class that is only predicted has IoU 0 but no frequency: it counts in
  # mIoU and not in fIoU, as in the authors' code.
  frequency_iou = (share[share > 0] * iou[share > 0]).sum() if total else np.nan
  return Scores(
    mIoU=_mean_of_defined(iou),
    pAcc=float(pixel_accuracy),
    mAcc=_mean_of_defined(accuracy),
    fIoU=float(frequency_iou),
    iou=iou,
    accuracy=accuracy,
    share=share,
  )


def table(scores: Scores, class_names: Sequence[str]) -> str:
  """Lays scores out for a terminal, in per cent.

  Args:
    scores: the scores of C classes.
    class_names: C names, in the order of the classes.

  Returns:
    Aligned lines: a row per class, then the four scores. '-' stands
    for a score that nothing defines.
  """
  width = max(len('class'), *map(len, class_names))
  lines = [f'{"class":<{width}}  {"IoU":>6}  {"acc":>6}  {"pixels":>6}']
  rule = '-' * len(lines[0])
  lines.append(rule)
  columns = scores.iou, scores.accuracy, scores.share
  for name, *values in zip(class_names, *columns, strict=True):
    cells = '  '.join(f'{_percent(value):>6}' for value in values)
    lines.append(f'{name:<{width}}  {cells}')
  lines.append(rule)
  for name, value in scores.summary().items():
    lines.append(f'{name:<{width}}  {_percent(value):>6}')
  return '\n'.join(lines)


def to_json(
  scores: Scores, class_names: Sequence[str]
) -> dict[str, float | dict[str, float | None] | None]:
  """Puts scores into plain types, ready for `json.dump(allow_nan=False)`.

  Args:
    scores: the scores of C classes.
    class_names: C names, in the order of the classes, each its own.

  Returns:
    The four scores and 'per_class_IoU' by name, as fractions in [0, 1]; None
    for nan, which JSON does not have.
  """
  result = {k: _none_for_nan(v) for k, v in scores.summary().items()}
  result['per_class_IoU'] = {
    name: _none_for_nan(value)
    for name, value in zip(class_names, scores.iou, strict=True)
  }
  return result


def _mean_of_defined(values: np.ndarray) -> float:
  # nanmean warns where nothing is left to average.
  return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _none_for_nan(value: float) -> float | None:
  return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
  return '-' if np.isnan(value) else f'{100 * value:.2f}'
