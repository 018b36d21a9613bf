"""The images that a network does worst on, and those it does best on."""

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer

from emanet_jax.evaluation.metrics import accuracy, iou


class HardestImages:
  """The best and the worst images fed so far, by the mIoU of each alone.

  Holds twice `count` pictures at most, and has none made that is not among
  them. Of equal images the earlier one stands first. In a split of less than
  twice `count` images some are in both lists.
  """

  def __init__(self, count: int):
    """Starts with no images.

    Args:
      count: Images to keep on each side, ≥ 0.
    """
    self._count = count
    self._best: list[tuple[float, dict]] = []
    self._worst: list[tuple[float, dict]] = []

  @property
  def best(self) -> list[dict[str, Any]]:
    """The pictures of the greatest mIoU, greatest first."""
    return [picture for _, picture in self._best]

  @property
  def worst(self) -> list[dict[str, Any]]:
    """The pictures of the least mIoU, least first."""
    return [picture for _, picture in self._worst]

  def add(
    self,
    confusion: Integer[np.ndarray, 'classes classes'],
    make_picture: Callable[[], Mapping[str, Any]],
  ) -> None:
    """Looks at one image.

    Args:
      confusion: Its pixel counts, rows are labels. Without a labelled pixel
        an image is neither good nor bad, and passed over.
      make_picture: Makes what is kept; called at most once, and at once. The
        `image_scores` are added to it.
    """
    scores = image_scores(confusion)
    miou = scores['miou']
    if math.isnan(miou):
      return
    entered = [
      (kept, rank)
      for kept, rank in ((self._best, -miou), (self._worst, miou))
      if bisect.bisect_right(kept, rank, key=_rank) < self._count
    ]
    if entered:
      picture = {**make_picture(), **scores}
      for kept, rank in entered:
        bisect.insort_right(kept, (rank, picture), key=_rank)
        del kept[self._count :]


def image_scores(
  confusion: Integer[np.ndarray, 'classes classes'],
) -> dict[str, float]:
  """Scores of one image: `miou` of the classes in it, and `accuracy`.

  Both are fractions in [0, 1], nan for an image without a labelled pixel. A
  class that is only predicted counts with an IoU of 0.
  """
  confusion = confusion.astype(np.int64)
  return {
    'miou': iou.measure(confusion).summary['mIoU'],
    'accuracy': accuracy.measure(confusion).summary['pAcc'],
  }


def _rank(entry: tuple[float, dict]) -> float:
  return entry[0]
