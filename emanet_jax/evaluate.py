"""A split to scores: one confusion matrix over all of its images."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from emanet_jax import checkpoint, inference, metrics, report, sharding
from emanet_jax.data import pipeline
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.report import Evaluation


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> Evaluation:
  """Scores the latest checkpoint of a workdir and writes `workdir/eval`.

  Raises:
    UserError: No checkpoint, one of another model, or data that is not there.
  """
  check(config)
  manager = checkpoint.open_manager(workdir)
  if manager.latest_step() is None:
    raise UserError(
      f'{manager.directory} holds no checkpoint; train first, with '
      f'--mode=train --workdir={workdir}'
    )
  checkpoint.check_config(manager, config, evaluating=True)
  dataset = pipeline.open_dataset(config.data, (config.data.eval_split,))
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
    report.write(workdir, evaluation, dataset.spec, manager.latest_step())
  return evaluation


def check(config: ml_collections.ConfigDict) -> None:
  """Raises a UserError for values of the `eval` part that cannot be."""
  if config.eval.batch_size < 1 or config.eval.num_pictures < 0:
    raise UserError(
      'eval.batch_size must be ≥ 1 and eval.num_pictures ≥ 0; got '
      f'{config.eval.batch_size} and {config.eval.num_pictures}'
    )


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
  confusion = _sum_over_processes(confusion)
  count = _sum_over_processes(np.array([count], np.int64))[0]
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


def _sum_over_processes(counts: np.ndarray) -> np.ndarray:
  if jax.process_count() == 1:
    return counts
  # JAX would cut int64 to 32 bits on the way: send the halves.
  halves = multihost_utils.process_allgather(counts.view(np.uint32))
  return np.asarray(halves).view(np.int64).sum(axis=0)
