"""A split to scores: one confusion matrix over all of its images."""

import dataclasses
import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax import (
  checkpoint,
  inference,
  metrics,
  plots,
  sharding,
  visualize,
)
from emanet_jax.data import pipeline
from emanet_jax.data.spec import IGNORE_LABEL, DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model


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


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> Evaluation:
  """Scores the latest checkpoint of a workdir and writes `workdir/eval`.

  Raises:
    UserError: No checkpoint, one of another model, or data that is not there.
  """
  dataset = pipeline.open_dataset(config.data, (config.data.eval_split,))
  manager = checkpoint.open_manager(workdir)
  if manager.latest_step() is None:
    raise UserError(
      f'{manager.directory} holds no checkpoint; train first, with '
      f'--mode=train --workdir={workdir}'
    )
  checkpoint.check_config(manager, config, evaluating=True)
  model = create_model(config.model, dataset.spec.num_classes)
  mesh = sharding.create_mesh(jax.local_devices())
  evaluation = run_split(
    create_eval_step(model, dataset.spec.num_classes),
    checkpoint.restore_variables(manager, sharding.replicated(mesh)),
    dataset,
    config.data.eval_split,
    batch_size=config.eval.batch_size,
    stride=config.model.backbone.output_stride,
    num_pictures=config.eval.num_pictures,
  )
  if jax.process_index() == 0:
    write_report(workdir, evaluation, dataset.spec, manager.latest_step())
  return evaluation


def create_eval_step(model: nn.Module, num_classes: int) -> Callable:
  """The jitted (variables, batch) → confusion matrix, predictions, sown."""

  @jax.jit
  def eval_step(variables, batch):
    logits, sown = inference.predict_logits(
      model, variables, batch['image'], batch['size']
    )
    prediction = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    confusion = metrics.confusion_matrix(
      batch['label'], prediction, num_classes, IGNORE_LABEL
    )
    return confusion, prediction, sown.get('responsibilities')

  return eval_step


def run_split(
  eval_step: Callable,
  variables: dict,
  dataset: pipeline.Dataset,
  split: str,
  *,
  batch_size: int,
  stride: int,
  num_pictures: int,
) -> Evaluation:
  """Evaluates every image of a split at its native size, once.

  Images are batched with others of the same padded size, which gives each one
  the logits that it gets alone; the last batch of each size is filled up with
  empty images that no pixel counts of. Processes share the images out and sum
  their confusion matrices.

  Args:
    eval_step: From `create_eval_step`.
    variables: Of the model, on this process's devices.
    dataset: The prepared data set.
    split: Its split.
    batch_size: Images at a time, rounded up to this process's devices.
    stride: The network's output stride, which the padding depends on.
    num_pictures: First images to return in `pictures`.
  """
  start = time.monotonic()
  mesh = sharding.create_mesh(jax.local_devices())
  batch_size += -batch_size % mesh.size
  examples = pipeline.evaluation_examples(
    dataset,
    split,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  classes = dataset.spec.num_classes
  confusion = np.zeros((classes, classes), np.int64)
  count, shapes, pictures = 0, set(), []
  for group, size in same_size_groups(examples, batch_size, stride):
    batch = _collate(group, size, batch_size)
    shapes.add(size)
    counts, prediction, responsibilities = eval_step(
      variables, jax.device_put(batch, sharding.batch_sharding(mesh))
    )
    confusion += np.asarray(counts)
    count += len(group)
    if any(example['index'] < num_pictures for example in group):
      pictures += _pictures(group, size, prediction, responsibilities)
  confusion, count = _sum_over_processes((confusion, np.int64(count)))
  return Evaluation(
    confusion,
    int(count),
    len(shapes),
    time.monotonic() - start,
    sorted(pictures, key=lambda p: p['index'])[:num_pictures],
  )


def same_size_groups(
  examples: Iterable[dict], batch_size: int, stride: int
) -> Iterator[tuple[list[dict], tuple[int, int]]]:
  """Examples in groups of one padded size: full ones first, then the rest."""
  waiting = defaultdict(list)
  for index, example in enumerate(examples):
    size = inference.padded_size(*example['label'].shape, stride)
    waiting[size].append({**example, 'index': index})
    if len(waiting[size]) == batch_size:
      yield waiting.pop(size), size
  for size, group in waiting.items():
    yield group, size


def _collate(group, size, batch_size) -> dict[str, np.ndarray]:
  label = np.full((batch_size, *size), IGNORE_LABEL, np.uint8)
  for i, example in enumerate(group):
    height, width = example['label'].shape
    label[i, :height, :width] = example['label']
  images = [example['image'] for example in group]
  return {'label': label, **inference.pad_images(images, size, batch_size)}


def _pictures(group, size, prediction, responsibilities) -> list[dict]:
  """The group's examples with what the network made of them, native size."""
  prediction = np.asarray(prediction)
  pictures = []
  for i, example in enumerate(group):
    height, width = example['label'].shape
    picture = {**example, 'prediction': prediction[i, :height, :width]}
    if responsibilities is not None:
      z = np.asarray(responsibilities[i])
      # Feature pixels whose centre lies inside the photo.
      rows = 1 + (height - 1) * (z.shape[0] - 1) // max(size[0] - 1, 1)
      cols = 1 + (width - 1) * (z.shape[1] - 1) // max(size[1] - 1, 1)
      picture['responsibilities'] = z[:rows, :cols]
    pictures.append(picture)
  return pictures


def _sum_over_processes(tree):
  if jax.process_count() == 1:
    return tree
  gathered = multihost_utils.process_allgather(tree)
  return jax.tree.map(functools.partial(np.sum, axis=0), gathered)


def write_report(
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
