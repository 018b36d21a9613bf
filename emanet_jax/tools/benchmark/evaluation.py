"""Images a second of evaluation, in few shapes and one at a time.

The same photos of VOC's sizes are scored twice: in the shapes that evaluation
plans for a split of them, and each alone at its own padded size, as the authors
do, which compiles once for every size; the latter also in PyTorch, in this
process, where that is installed.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from emanet_jax.evaluation.evaluate import create_eval_step
from emanet_jax.inference import batching
from emanet_jax.inference.views import padded_size
from emanet_jax.models.backbones.resnet import BASIC
from emanet_jax.models.segmenter import create_model, normalize
from emanet_jax.runtime import startup
from emanet_jax.tools.benchmark.subjects import CLASSES, draw_variables

# Heights and widths like VOC's: half of them 500 wide, a quarter portraits.
_SIZES = (
  *((375, 500), (333, 500), (500, 375), (366, 500), (500, 333), (281, 500)),
  *((334, 500), (400, 500), (500, 400), (332, 500), (357, 500), (500, 334)),
)
_IMAGES_OF_SPLIT = 1449  # of VOC's: more images are worth more shapes


def measure(
  config: ml_collections.ConfigDict,
  *,
  num_images: int,
  batch_size: int,
  rounds: int,
) -> dict[str, Any]:
  """Measures both ways, in turns.

  Args:
    config: The `model` part of a configuration.
    num_images: Photos, of twelve sizes in turn.
    batch_size: Of the shared batches, at most.

    rounds: Passes of each after the first.

  Returns:
    For 'few shapes' and 'one at a time': 'compilations', 'images_per_second'
    with compilation (the first pass) and 'warm' (median of later passes); and
    'ratio' of the first to the second, with compilation and warm; and
    'equal_pixels', the share of pixels that both give the same class;
    'padding', the pixels of the shapes over those of the photos. With PyTorch
    also that one's 'images_per_second' and 'warm', and 'torch_time', the time
    of 'few shapes' over that of it, warm: median, least and most of the rounds.
  """
  startup.keep_freed_memory()
  model = create_model(config, CLASSES)
  variables = draw_variables(model)
  rng = np.random.default_rng(0)
  images = [
    rng.integers(0, 256, (*_SIZES[i % len(_SIZES)], 3), dtype=np.uint8)
    for i in range(num_images)
  ]
  batches = _plan(images, model.output_stride, batch_size)
  ways = {
    'few shapes': _few_shapes(model, variables, images, batches),
    'one at a time': _one_at_a_time(model, variables, images),
  }
  # PyTorch's twin is of the default network, at any depth with bottlenecks.
  given = config.backbone
  has_twin = not given.stage_sizes and given.depth not in BASIC
  if importlib.util.find_spec('torch') and has_twin:
    ways['PyTorch'] = _in_pytorch(config, images)
  seconds: dict[str, list[float]] = {name: [] for name in ways}
  found = {}
  for _ in range(1 + rounds):
    for name, score in ways.items():
      start = time.perf_counter()
      found[name] = score()
      seconds[name].append(time.perf_counter() - start)
  stride = model.output_stride
  sizes = {padded_size(*image.shape[:2], stride) for image in images}
  compilations = {
    'few shapes': len({batch.shape for batch in batches}),
    'one at a time': len(sizes),
  }
  return {
    'images': num_images,
    'batch_size': batch_size,
    'device': jax.devices()[0].device_kind,
    **_report(seconds, compilations, num_images),
    'equal_pixels': _equal_pixels(found['few shapes'], found['one at a time']),
    'padding': _padding(images, batches),
  }


def _report(
  seconds: dict[str, list[float]],
  compilations: dict[str, int],
  num_images: int,
) -> dict[str, Any]:
  report: dict[str, Any] = {}
  for name, (first, *later) in seconds.items():
    report[name] = {
      'images_per_second': num_images / first,
      'warm': num_images / statistics.median(later),
    }
    if name in compilations:
      report[name]['compilations'] = compilations[name]
  one, alone = report['few shapes'], report['one at a time']
  report['ratio'] = one['images_per_second'] / alone['images_per_second']
  report['warm_ratio'] = one['warm'] / alone['warm']
  if 'PyTorch' in report:
    pairs = zip(seconds['few shapes'][1:], seconds['PyTorch'][1:], strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    report['torch_time'] = (statistics.median(ratios), min(ratios), max(ratios))
  return report


def _equal_pixels(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
  same = [np.mean(a == b) for a, b in zip(ours, theirs, strict=True)]
  return float(np.mean(same))


def table(result: dict[str, Any]) -> str:
  """What `measure` returned, to be read."""
  lines = [
    '{images} photos of VOC sizes, batches of {batch_size}, {device}'.format(
      **result
    ),
    f'{"":16}{"compilations":>14}{"images/s":>10}{"when warm":>11}',
  ]
  for name in ('few shapes', 'one at a time', 'PyTorch'):
    if name not in result:
      continue
    way = result[name]
    lines.append(
      f'{name:16}{way.get("compilations", "-"):>14}'
      f'{way["images_per_second"]:>10.2f}'
      f'{way["warm"]:>11.2f}'
    )
  lines.append(
    f'few shapes / one at a time: {result["ratio"]:.2f} with compilation, '
    f'{result["warm_ratio"]:.2f} when warm; equal pixels '
    f'{100 * result["equal_pixels"]:.4f} %; pixels with padding '
    f'{result["padding"]:.2f}'
  )
  if 'torch_time' in result:
    lines.append(
      'time of few shapes / PyTorch when warm: '
      '{:.2f} ({:.2f} to {:.2f})'.format(*result['torch_time'])
    )
  return '\n'.join(lines)


def _plan(images, stride, batch_size) -> list[batching.Batch]:
  """Batches of the images, in the shapes that a split of VOC's size has."""
  split = [_SIZES[i % len(_SIZES)] for i in range(_IMAGES_OF_SPLIT)]
  planned = batching.plan_batches(split, batch_size=batch_size, stride=stride)
  by_shape: dict[batching.Batch, list[int]] = {}
  for batch in planned:
    key = batching.Batch(batch.shape, batch.places, ())
    own = [member for member in batch.members if member < len(images)]
    by_shape.setdefault(key, []).extend(own)
  return [
    batching.Batch(key.shape, key.places, tuple(own[i : i + key.places]))
    for key, own in by_shape.items()
    for i in range(0, len(own), key.places)
  ]


def _padding(images, batches) -> float:
  pixels = sum(image.shape[0] * image.shape[1] for image in images)
  padded = sum(b.places * b.shape[0] * b.shape[1] for b in batches)
  return padded / pixels


def _few_shapes(model, variables, images, batches) -> Callable:
  step = create_eval_step(model, CLASSES)

  def score():
    found = [None] * len(images)
    for batch in batches:
      pixels = [images[i] for i in batch.members]
      labels = [np.zeros(image.shape[:2], np.uint8) for image in pixels]
      given = {
        **batching.pad_images(pixels, batch.shape, batch.places),
        'label': batching.pad_labels(labels, batch.shape, batch.places),
      }
      _, prediction, _ = step(variables, given)
      prediction = np.asarray(prediction)
      for place, (i, label) in enumerate(
        zip(batch.members, labels, strict=True)
      ):
        height, width = label.shape
        found[i] = prediction[place, :height, :width]
    return found

  return score


def _one_at_a_time(model, variables, images) -> Callable:
  @jax.jit
  def predict(variables, image, size):
    rows = jnp.arange(image.shape[1])[:, None] < size[0, 0]
    inside = rows & (jnp.arange(image.shape[2]) < size[0, 1])
    x = jnp.where(inside[None, ..., None], normalize(image), 0)
    logits = model.apply(variables, x)
    return jnp.argmax(logits, axis=-1).astype(jnp.uint8)

  def score():
    found = []
    for image in images:
      height, width = image.shape[:2]
      shape = padded_size(height, width, model.output_stride)
      batch = batching.pad_images([image], shape, 1)
      prediction = predict(variables, batch['image'], batch['size'])
      found.append(np.asarray(prediction)[0, :height, :width])
    return found

  return score


def _in_pytorch(config, images) -> Callable:
  """Each image alone at its padded size, eager, as the authors do it."""
  from emanet_jax.tools.benchmark import torch_subjects

  predict = torch_subjects.predictor(config.backbone.depth, config.dtype)

  def score():
    found = []
    for image in images:
      height, width = image.shape[:2]
      shape = padded_size(height, width, 8)
      batch = batching.pad_images([image], shape, 1)
      found.append(predict(batch['image'])[0, :height, :width])
    return found

  return score
