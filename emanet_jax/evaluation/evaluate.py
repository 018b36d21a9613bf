"""A split to scores: one confusion matrix over all of its images."""

import functools
import time
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from emanet_jax.config import as_plain_dict
from emanet_jax.data.input import pipeline
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.evaluation import report, settings
from emanet_jax.evaluation.confusion import confusion_matrix
from emanet_jax.evaluation.metrics import Measure, create_metrics
from emanet_jax.evaluation.plan import plan_split
from emanet_jax.evaluation.report import Conditions, Evaluation
from emanet_jax.evaluation.tally import Tally
from emanet_jax.inference import batching, predictor
from emanet_jax.inference.predictor import SINGLE_SCALE, Protocol
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import places, sharding
from emanet_jax.runtime.places import AnyPath
from emanet_jax.runtime.progress import Progress
from emanet_jax.state.inference_weights import (
  Trained,
  open_for_inference,
  restore_for_inference,
)


def evaluate(
  config: ml_collections.ConfigDict, workdir: str, step: int | None = None
) -> Evaluation:
  """Scores a checkpoint of a workdir and writes below `workdir/eval`.

  Whole images once, of the run's own `data.eval_split` and of its latest step,
  go there; anything else into a folder of its own, windows too.

  Args:
    config: See `emanet_jax.config`.
    workdir: Folder of the run.
    step: Of the checkpoint; None: the latest.

  Raises:
    UserError: No checkpoint, one of another model, or data that is not there.
  """
  settings.check(config)
  settings.check_devices(config)
  trained = open_for_inference(config, workdir, step)
  folder = places.as_path(workdir) / 'eval'
  places.check_folder(folder)  # before the work is done
  split, look = trained.config.data.eval_split, settings.get_protocol(config)
  unusual = [split] * (split != trained.split) + [look.name] * bool(look.name)
  if trained.step != trained.manager.latest_step():
    unusual.append(f'step_{trained.step}')
  score = create_scorer(trained.config)
  return score(trained, folder / '_'.join(unusual))


def create_scorer(
  config: ml_collections.ConfigDict,
) -> Callable[[Trained, AnyPath], Evaluation]:
  """Returns what scores steps, and compiles for the first of them only.

  Args:
    config: Of the use, as in `Trained`.

  Returns:
    A function of a step, and the folder for its report.

  Raises:
    UserError: The data are not there.
  """
  split, protocol = config.data.eval_split, settings.get_protocol(config)
  dataset = pipeline.open_dataset(config.data, (split,))
  model = create_model(config.model, dataset.spec.num_classes)
  eval_step = create_eval_step(model, dataset.spec.num_classes, protocol)
  metrics = create_metrics(config.eval.metrics)

  def score(trained, folder):
    evaluation = run_split(
      model,
      restore_for_inference(trained, dataset.spec),
      dataset,
      split,
      eval_step,
      batch_size=settings.get_batch_size(config),
      shape_step=config.eval.shape_step,
      space=config.mesh.space,
      num_pictures=config.eval.num_pictures,
      metrics=metrics,
    )
    if jax.process_index() == 0:
      report.write(
        folder,
        evaluation,
        dataset.spec,
        Conditions(split, trained.step, protocol, config.model.dtype),
        as_plain_dict(config),
      )
    return evaluation

  return score


def create_eval_step(
  model: nn.Module, num_classes: int, protocol: Protocol = SINGLE_SCALE
) -> Callable:
  """The (variables, batch) → confusion matrices, predictions, sown.

  A matrix for each image, int32 [b, classes, classes]; predictions are uint8
  [b, h, w]. All stays on the devices; one compilation a shape and scale.
  """
  confusion = functools.partial(
    confusion_matrix, num_classes=num_classes, ignore_label=IGNORE_LABEL
  )

  def count(prediction, label):
    return jax.vmap(confusion)(label, prediction), prediction

  look = predictor.create_labeler(model, protocol, count)

  def view(variables, batch):
    counted, sown = look(
      variables, batch['image'], batch['size'], batch['label']
    )
    return *counted, sown.get('responsibilities')

  # One view is one program, which can be compiled before there are images.
  return jax.jit(view) if len(protocol.views) == 1 else view


def run_split(
  model: nn.Module,
  variables: dict,
  dataset: pipeline.Dataset,
  split: str,
  eval_step: Callable,
  *,
  batch_size: int,
  shape_step: int,
  num_pictures: int,
  space: int = 1,
  metrics: Mapping[str, Measure] | None = None,
) -> Evaluation:
  """Evaluates every image of a split at its native size, once.

  Images share batches of few shapes, in which each has the logits that it has
  alone; empty places have no pixel that counts. Processes share the images out
  and sum their confusion matrices.

  Args:
    model: The network.
    variables: Of the model, on this process's devices.
    dataset: The prepared data set.
    split: Its split.
    eval_step: From `create_eval_step`.
    batch_size: See `plan_batches`.
    shape_step: See `plan_batches`.
    num_pictures: First images to return in `pictures`.
    space: See `plan_split`.
    metrics: See `Evaluation`.

  Raises:
    LackOfMemoryError: A device's memory does not suffice.
    UserError: Devices cannot share rows out like that.
  """
  start = time.monotonic()
  plan = plan_split(
    *(model, dataset, split),
    batch_size=batch_size,
    shape_step=shape_step,
    space=space,
  )
  tally = Tally(
    dataset.spec.num_classes,
    num_pictures,
    Progress(f'evaluating {split}', len(plan.images)),
  )
  lack = None
  try:
    with jax.set_mesh(plan.mesh):
      _count(plan, dataset, split, variables, eval_step, tally)
  except batching.LackOfMemoryError as error:
    lack = error
  # Where one process lacks memory, none waits for its counts.
  if sharding.any_process(lack is not None):
    raise lack or batching.LackOfMemoryError('another process lacks memory')
  total = _sum_over_processes(tally.confusion)
  count = _sum_over_processes(np.array([tally.num_images], np.int64))[0]
  return Evaluation(
    total,
    int(count),
    plan.num_shapes,
    time.monotonic() - start,
    sorted(tally.pictures, key=lambda p: p['index']),
    best=tally.hardest.best,
    worst=tally.hardest.worst,
    metrics=metrics,
  )


def _count(plan, dataset, split, variables, eval_step, tally) -> None:
  """Evaluates the plan's batches, into the tally."""
  examples = pipeline.evaluation_examples(
    dataset,
    split,
    [plan.images[member] for batch in plan.batches for member in batch.members],
  )
  running = None
  for batch in plan.batches:
    group = [{**next(examples), 'index': i} for i in batch.members]
    with batching.explain_lack_of_memory(batch.shape):
      outputs = eval_step(variables, _on_devices(group, batch, plan.mesh))
      # Counted while the devices are at the next batch.
      if running:
        tally.add(*running)
    running = group, batch.shape, outputs
  if running:
    with batching.explain_lack_of_memory(running[1]):
      tally.add(*running)


def _on_devices(group, batch: batching.Batch, mesh) -> dict[str, jax.Array]:
  images, labels = ([e[key] for e in group] for key in ('image', 'label'))
  arrays = {
    **batching.pad_images(images, batch.shape, batch.places),
    'label': batching.pad_labels(labels, batch.shape, batch.places),
  }
  return jax.device_put(arrays, sharding.batch_sharding(mesh))


def _sum_over_processes(counts: np.ndarray) -> np.ndarray:
  if jax.process_count() == 1:
    return counts
  # A split of large images has more pixels than 32 bits count.
  # JAX would cut int64 to 32 bits on the way: send the halves.
  halves = multihost_utils.process_allgather(counts.view(np.uint32))
  return np.asarray(halves).view(np.int64).sum(axis=0)
