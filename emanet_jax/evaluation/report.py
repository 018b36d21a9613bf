"""What an evaluation found, and the folder that shows it."""

import dataclasses
import datetime
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import numpy as np
from absl import logging

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.evaluation import html_report
from emanet_jax.evaluation.metrics import Measure, iou
from emanet_jax.evaluation.scores import Scores, score, table, to_json
from emanet_jax.inference.predictor import Protocol
from emanet_jax.runtime import atomic
from emanet_jax.runtime.places import AnyPath
from emanet_jax.visualization import overlays, plots


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What a pass over a split found.

  Attributes:
    confusion: Pixel counts, int64 [classes, classes], rows are labels.
    num_images: Images evaluated, over all processes.
    num_shapes: Batch shapes that this process met, each compiled once a scale.
    seconds: Wall time, compilation included.
    pictures: Of this process's first few images: `id`, `image`, `label`,
      `prediction`, and `responsibilities` where the head has them. Where they
      are known, also `miou` and `accuracy` of the image alone, in [0, 1].
    best: Pictures of this process's images of the greatest mIoU, in order.
    worst: Of the least mIoU, likewise.
    metrics: What `scores` has; None: all metrics that there are.
  """

  confusion: np.ndarray
  num_images: int
  num_shapes: int
  seconds: float
  pictures: list[dict[str, Any]]
  best: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  worst: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  metrics: Mapping[str, Measure] | None = None

  @property
  def scores(self) -> Scores:
    """Of the confusion matrix."""
    return score(self.confusion, self.metrics)

  @property
  def miou(self) -> float:
    """Mean IoU, whichever metrics are enabled; by it the best is kept."""
    return iou.measure(self.confusion).summary['mIoU']

  def __str__(self) -> str:
    scores = '  '.join(
      f'{name} {100 * value:.2f}' for name, value in self.scores.summary.items()
    )
    return (
      f'{scores} on {self.num_images} images of {self.num_shapes} shapes in '
      f'{self.seconds:.1f} s'
    )


@dataclasses.dataclass(frozen=True)
class Conditions:
  """How scores were made.

  Attributes:
    split: Of the data set.
    step: Of the checkpoint.
    protocol: How each image was looked at.
    dtype: Of the network's features.
  """

  split: str
  step: int
  protocol: Protocol
  dtype: str


def write(
  folder: AnyPath,
  evaluation: Evaluation,
  spec: DatasetSpec,
  conditions: Conditions,
  config: Mapping[str, Any],
) -> None:
  """Writes report.html, scores.json and pictures; logs the scores.

  Args:
    folder: Made where it is not there.
    evaluation: What to show.
    spec: Of the data set.
    conditions: What the scores are of.
    config: The configuration, as plain dicts, for the page to list.
  """
  scores = evaluation.scores
  logging.info('%s', '\n' + table(scores, spec.classes))
  logging.info(
    '%s, step %d, %s, %s',
    *(conditions.split, conditions.step),
    *(conditions.protocol, conditions.dtype),
  )
  folder.mkdir(parents=True, exist_ok=True)
  content = {
    **to_json(scores, spec.classes),
    'num_images': evaluation.num_images,
    'dataset': spec.name,
    'split': conditions.split,
    'step': int(conditions.step),
    'dtype': conditions.dtype,
    **dataclasses.asdict(conditions.protocol),
  }
  atomic.write(folder / 'scores.json', json.dumps(content, indent=2) + '\n')
  atomic.write(
    folder / 'report.html',
    html_report.render(
      evaluation.confusion,
      scores,
      spec,
      {
        'Worst images': evaluation.worst,
        'Best images': evaluation.best,
        'First images': evaluation.pictures,
      },
      _facts(evaluation, spec, conditions),
      config,
    ),
  )
  plots.confusion_png(
    folder / 'confusion.png',
    evaluation.confusion,
    spec.classes,
    title='   '.join(f'{k} {100 * v:.2f}' for k, v in scores.summary.items()),
  )
  if evaluation.pictures:
    overlays.overlay_page(
      folder / 'overlays.png',
      evaluation.pictures,
      spec.classes,
      np.array(spec.palette, np.uint8),
      f'{spec.name} {conditions.split}, step {conditions.step}',
    )
  attended = [p for p in evaluation.pictures if 'responsibilities' in p]
  if attended:
    overlays.attention_page(folder / 'attention.png', attended)
  logging.info(
    '%d images in %.1f s (%.1f images/s), %d shape(s) compiled; report in %s',
    evaluation.num_images,
    evaluation.seconds,
    evaluation.num_images / evaluation.seconds,
    evaluation.num_shapes,
    folder,
  )


def _facts(
  evaluation: Evaluation, spec: DatasetSpec, conditions: Conditions
) -> dict[str, str]:
  """Of what, when, how fast and on what, in words."""
  now = datetime.datetime.now(datetime.UTC)
  device = jax.devices()[0]
  packages = 'jax', 'jaxlib', 'flax', 'numpy'
  return {
    'data set': spec.name,
    'split': conditions.split,
    'step': f'{conditions.step:,}',
    'views': str(conditions.protocol),
    'dtype': conditions.dtype,
    'images': f'{evaluation.num_images:,}',
    'date': now.strftime('%Y-%m-%d %H:%M UTC'),
    'time': f'{evaluation.seconds:.1f} s',
    'images/s': f'{evaluation.num_images / evaluation.seconds:.1f}',
    'batch shapes': str(evaluation.num_shapes),
    'devices': f'{jax.device_count()} × {device.device_kind}',
    'python': platform.python_version(),
    **{package: metadata.version(package) for package in packages},
  }
