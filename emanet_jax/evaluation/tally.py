"""What an evaluation has counted so far, batch by batch."""

import functools

import numpy as np

from emanet_jax.evaluation.hardest_images import HardestImages, image_scores
from emanet_jax.inference import batching
from emanet_jax.runtime.progress import Progress


class Tally:
  """Adds batches up: their counts, first pictures, best and worst images."""

  def __init__(self, num_classes: int, num_pictures: int, progress: Progress):
    self.confusion = np.zeros((num_classes, num_classes), np.int64)
    self.num_images = 0
    self.pictures: list[dict] = []
    self.hardest = HardestImages(min(4, num_pictures))
    self._num_pictures, self._progress = num_pictures, progress

  def add(self, group, shape, outputs) -> None:
    """Waits for a batch's outputs and counts its group."""
    confusion, prediction, responsibilities = outputs
    with batching.explain_lack_of_memory(shape):
      confusion = np.asarray(confusion)
    self.confusion += confusion.sum(0, dtype=np.int64)
    self.num_images += len(group)
    for i, example in enumerate(group):
      make = functools.partial(
        _picture, example, shape, i, prediction, responsibilities
      )
      self.hardest.add(confusion[i], make)
      if example['index'] < self._num_pictures:
        self.pictures.append({**make(), **image_scores(confusion[i])})
    self._progress.tick(len(group))


def _picture(example, shape, place, prediction, responsibilities) -> dict:
  """The example with what the network made of its place in a batch.

  At native size, and copied: the batch is not kept for it. Only here are
  predictions looked at, since few images become pictures.
  """
  height, width = example['label'].shape
  prediction = np.asarray(prediction)[place, :height, :width].copy()
  picture = {**example, 'prediction': prediction}
  if responsibilities is not None:
    z = np.asarray(responsibilities)[place]
    # Feature pixels whose centre lies inside the photo.
    rows = 1 + (height - 1) * (z.shape[0] - 1) // max(shape[0] - 1, 1)
    cols = 1 + (width - 1) * (z.shape[1] - 1) // max(shape[1] - 1, 1)
    picture['responsibilities'] = z[:rows, :cols].copy()
  return picture
