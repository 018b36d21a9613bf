"""What can be wrong with a run before it begins."""

import flax.linen as nn
import jax
import ml_collections
from absl import logging

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import settings
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import places, sharding
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import create_optimizer


def check(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
  """Checks a run's configuration, before anything is read.

  Raises:
    UserError: A value that cannot be.
  """
  for key, value in config.train.items():
    least = 0 if key in ('keep_best', 'eval_every') else 1
    if value < least:
      raise UserError(f'train.{key} is {value}; it must be ≥ {least}')
  sharding.check_batch_size(
    config.train.batch_size, config.train.accumulation_steps, mesh
  )
  create_loss(config.loss)
  model = create_model(config.model, num_classes=1)  # not known yet
  create_optimizer(config.optimizer, config.train.steps, model.frozen_params())
  settings.check(config)
  for place in (config.init_from, config.data.data_dir):
    places.as_path(place)
  _tell_geometry(config.data.crop_size, model)


def _tell_geometry(crop_size: int, model: nn.Module) -> None:
  """Warns where crops lie on another grid than images in evaluation."""
  stride = model.output_stride
  rest = (crop_size - 1) % stride
  if model.align_corners and rest:
    smaller = crop_size - rest
    logging.warning(
      'data.crop_size is %d: features of crops lie at other pixels than those '
      'of images in evaluation, whose sides are padded to a multiple of the '
      'output stride, %d, plus one, as model.align_corners needs. The nearest '
      'such sizes are %s.',
      *(crop_size, stride),
      ' and '.join(str(n) for n in (smaller, smaller + stride) if n > 1),
    )


def open_dataset(config: ml_collections.ConfigDict) -> pipeline.Dataset:
  """The data set, with something to learn in it.

  Raises:
    UserError: It is not there, or not a pixel of its training split is of a
      class.
  """
  splits = train_split, eval_split = (
    config.data.train_split,
    config.data.eval_split,
  )
  dataset = pipeline.open_dataset(config.data, splits)
  if not dataset.has_labelled_pixels(train_split):
    raise UserError(
      f'{dataset.directory}: no pixel of {train_split} has a class, so there '
      'is nothing to learn; see that the masks hold the values (or colours) of '
      'the class list, and prepare the data set again'
    )
  if not dataset.has_labelled_pixels(eval_split):
    logging.warning(
      '%s: no pixel of %s has a class: evaluations have no scores (nan), and '
      'no checkpoint is the best',
      *(dataset.directory, eval_split),
    )
  return dataset
