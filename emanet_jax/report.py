"""What an evaluation found, and the folder that shows it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from emanet_jax import metrics, plots, visualize
from emanet_jax.data.spec import DatasetSpec


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a pass over a split found.

  Attributes:
    confusion: Pixel counts, int64 [classes, classes], rows are labels.
    num_images: Images evaluated, over all processes.
    num_shapes: Batch shapes that this process met, each compiled once.
    seconds: Wall time, compilation included.
    pictures: Of this process's first few images: `id`, `image`, `label`,
      `prediction`, and `responsibilities` where the head has them.
  """

  confusion: np.ndarray
  num_images: int
  num_shapes: int
  seconds: float
  pictures: list[dict[str, Any]]

  @property
  def scores(self) -> metrics.Scores:
    """Of the confusion matrix."""
    return metrics.scores(self.confusion)

  def __str__(self) -> str:
    scores = '  '.join(
      f'{name} {100 * value:.2f}'
      for name, value in self.scores.summary().items()
    )
    return (
      f'{scores} on {self.num_images} images of {self.num_shapes} shapes in '
      f'{self.seconds:.1f} s'
    )


def write(
  workdir: str, evaluation: Evaluation, spec: DatasetSpec, step: int
) -> None:
  """Writes scores.json and the pictures to `workdir/eval`; logs the table."""
  folder = Path(workdir) / 'eval'
  folder.mkdir(parents=True, exist_ok=True)
  scores = evaluation.scores
  content = {
    **metrics.to_json(scores, spec.classes),
    'num_images': evaluation.num_images,
    'step': int(step),
    'dataset': spec.name,
  }
  temporary = folder / 'scores.json.tmp'
  temporary.write_text(json.dumps(content, indent=2) + '\n')
  os.replace(temporary, folder / 'scores.json')
  plots.confusion_png(
    folder / 'confusion.png', evaluation.confusion, spec.classes
  )
  if evaluation.pictures:
    visualize.overlay_page(
      folder / 'overlays.png',
      evaluation.pictures,
      spec.classes,
      np.array(spec.palette, np.uint8),
      f'{spec.name}, step {step}',
    )
  attended = [p for p in evaluation.pictures if 'responsibilities' in p]
  if attended:
    visualize.attention_page(folder / 'attention.png', attended)
  logging.info('%s', '\n' + metrics.table(scores, spec.classes))
  logging.info(
    '%d images in %.1f s (%.1f images/s), %d shapes compiled; report in %s',
    evaluation.num_images,
    evaluation.seconds,
    evaluation.num_images / evaluation.seconds,
    evaluation.num_shapes,
    folder,
  )
