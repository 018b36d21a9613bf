"""A run's programs, compiled for a target one by one, and told."""

import functools
from collections.abc import Callable, Iterator

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from emanet_jax.runtime import sharding
from emanet_jax.tools.plan import programs, report, targets
from emanet_jax.tools.plan.forecast import (
  Forecast,
  forecast,
  largest_fitting,
  read_memory,
)
from emanet_jax.tools.plan.targets import Chip, Target
from emanet_jax.training import checks

# More images of one size than any batch has.
_MANY = 1000


def plan(
  config: ml_collections.ConfigDict,
  target: Target,
  *,
  eval_size: tuple[int, int] | None = None,
  evaluation: bool = True,
  largest_batch: bool = True,
) -> Iterator[str]:
  """What a configuration needs of a target's devices.

  Args:
    config: Of the run.
    target: For which this process is prepared (`targets.prepare`).
    eval_size: Height and width of the largest image; None: those of the
      prepared data set, else of a crop.
    evaluation: Whether to compile that of the largest images.
    largest_batch: Whether to look for the largest that fits.

  Yields:
    Paragraphs, as soon as they are known.

  Raises:
    UserError: Before the first compilation: what cannot be.
  """
  chip = target.chip
  config = programs.for_platform(config, chip.platform)
  devices = targets.devices(target)
  mesh = sharding.create_mesh(devices, **config.mesh)
  checks.check(config, mesh)
  classes = programs.get_spec(config).num_classes
  sizes, whence = _sizes(config, eval_size)
  yield report.head(target)

  @functools.cache
  def of_batch(batch: int) -> Forecast | None:
    return _step(config, classes, mesh, chip, batch)

  batch = config.train.batch_size
  found = of_batch(batch)
  yield report.step(
    found,
    chip,
    batch=batch,
    steps=config.train.steps,
    shares=sharding.num_shares(mesh),
  )
  if found and evaluation:
    batches, program = programs.largest_evaluation(
      config, classes, devices, sizes
    )
    state, needed = found.memory.arguments, read_memory(program)
    # A split state's variables are put together beside it.
    held = state + needed.arguments * (mesh.shape['fsdp'] > 1)
    yield report.evaluation(batches, held, needed, chip, whence)
  if largest_batch and chip.source:
    unit = sharding.num_shares(mesh) * config.train.accumulation_steps
    yield _largest_batch(of_batch, chip, batch, unit)


def _sizes(
  config: ml_collections.ConfigDict, given: tuple[int, int] | None
) -> tuple[list[tuple[int, int]], str]:
  """Heights and widths of the images in evaluation, and where they are from."""
  if given:
    return [given] * _MANY, f'of images of {given[1]}×{given[0]}, as given'
  if sizes := programs.evaluated_sizes(config):
    return sizes, f'of the prepared {config.data.eval_split}'
  side = config.data.crop_size
  return [(side, side)] * _MANY, (
    f'no data set is prepared: of images of {side}×{side}, as crops are; '
    '--eval_size says another size'
  )


def _step(
  config: ml_collections.ConfigDict,
  classes: int,
  mesh: Mesh,
  chip: Chip,
  batch: int,
) -> Forecast | None:
  """Of a step with so many images; None where the compiler lacks memory."""
  config = config.copy_and_resolve_references()
  config.train.batch_size = batch
  try:
    compiled = programs.training_step(config, classes, mesh)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    logging.info('%d images: %s', batch, str(error).partition('\n')[0])
    return None
  found = forecast(compiled, chip, mesh.size)
  logging.info('%d images: %.0f MB', batch, found.memory.peak / 1e6)
  return found


def _largest_batch(
  of_batch: Callable[[int], Forecast | None], chip: Chip, batch: int, unit: int
) -> str:
  """The sentence on the largest batch; `unit` images are one a device."""

  def peak(images: int) -> int | None:
    found = of_batch(images * unit)
    return found and found.memory.peak

  images = largest_fitting(peak, chip.memory, batch // unit)
  if not images:
    return 'largest batch: none, since not even one image a device fits'
  return report.largest_batch(of_batch(images * unit), chip, images * unit)
