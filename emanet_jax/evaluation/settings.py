"""What `config.eval` says, and what it cannot say."""

import jax
import ml_collections

from emanet_jax.errors import UserError
from emanet_jax.evaluation.metrics import create_metrics
from emanet_jax.inference import predictor
from emanet_jax.inference.predictor import Protocol
from emanet_jax.models.segmenter import create_model


def check(config: ml_collections.ConfigDict) -> None:
  """Raises a UserError for values of the `eval` part that cannot be."""
  given = config.eval
  for key, least in (('batch_size', 1), ('num_pictures', 0), ('shape_step', 0)):
    if given[key] is not None and given[key] < least:
      raise UserError(f'eval.{key} is {given[key]}; it must be ≥ {least}')
  stride = create_model(config.model, num_classes=1).output_stride
  step = given.shape_step
  if step % stride:
    raise UserError(
      f'eval.shape_step is {step}; give 0, or a multiple of '
      f'model.backbone.output_stride, {stride}'
    )
  get_protocol(config)
  create_metrics(given.metrics)


def check_devices(config: ml_collections.ConfigDict) -> None:
  """Raises a UserError where this process has not the devices for its use."""
  space, count = config.mesh.space, jax.local_device_count()
  if space < 1 or count % space:
    raise UserError(
      f'mesh.space is {space}; it must divide the devices of this process, '
      f'{count}; with 1, images are not split'
    )


def get_batch_size(
  config: ml_collections.ConfigDict, platform: str | None = None
) -> int:
  """Images that share a batch: `eval.batch_size`, or what is good there.

  A CPU is as fast with one image at a time, needs less memory and has no empty
  places.

  Args:
    config: Of the run.
    platform: As JAX says it; None: this machine's.
  """
  usual = 1 if (platform or jax.default_backend()) == 'cpu' else 8
  return config.eval.batch_size or usual


def get_protocol(config: ml_collections.ConfigDict) -> Protocol:
  """How images are looked at; raises UserError for impossible values."""
  given = config.eval
  return predictor.create_protocol(
    multi_scale=given.multi_scale,
    scales=given.scales,
    flip=given.flip,
    window=given.window,
    window_stride=given.window_stride,
  )


def get_training_protocol(config: ml_collections.ConfigDict) -> Protocol:
  """How a run's own evaluations look: once, through windows if there are any.

  Several views would cost several times as much, at every evaluation.
  """
  window, stride = config.eval.window, config.eval.window_stride
  return Protocol(window=window, stride=stride)
