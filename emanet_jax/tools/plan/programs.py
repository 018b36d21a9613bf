"""The programs of a run, compiled for devices that are not here.

They are those that training and its evaluations compile, of shapes instead of
arrays; neither data nor weights are needed.
"""

import functools
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from emanet_jax.data import datasets
from emanet_jax.data.input import pipeline
from emanet_jax.data.preparation.prepare import prepared_directory
from emanet_jax.data.prepared import Dataset, load_dataset
from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate, settings
from emanet_jax.evaluation.plan import Plan
from emanet_jax.inference import batching
from emanet_jax.models.segmenter import compute_dtype, create_model
from emanet_jax.runtime import sharding
from emanet_jax.state import checkpoint, train_state
from emanet_jax.training.compile import compile_step
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import create_optimizer


def prepared(config: ml_collections.ConfigDict) -> Dataset | None:
  """The run's data set, where it lies prepared already."""
  directory = prepared_directory(config.data.name, config.data.data_dir)
  return load_dataset(directory) if directory.exists() else None


def get_spec(config: ml_collections.ConfigDict) -> DatasetSpec:
  """Of the run's data set.

  Raises:
    UserError: A user's own, which is not prepared yet.
  """
  name, dataset = config.data.name, prepared(config)
  spec = dataset.spec if dataset else datasets.get_dataset(name).SPEC
  if not spec.classes:
    raise UserError(
      f'the classes of data set {name!r} are in its prepared records: prepare '
      'it first (emanet_jax.tools.prepare_data), and say where it lies with '
      '--config.data.data_dir'
    )
  return spec


def for_platform(
  config: ml_collections.ConfigDict, platform: str
) -> ml_collections.ConfigDict:
  """The configuration with what its defaults mean on a platform."""
  config = config.copy_and_resolve_references()
  config.model.dtype = compute_dtype(config.model.dtype, platform)
  config.eval.batch_size = settings.get_batch_size(config, platform)
  return config


def training_step(
  config: ml_collections.ConfigDict, num_classes: int, mesh: Mesh
) -> jax.stages.Compiled:
  """The training step of a configuration, compiled as training does it."""
  model = create_model(config.model, num_classes)
  tx, _ = create_optimizer(
    config.optimizer, config.train.steps, model.frozen_params()
  )
  # Weights of classes are numbers in the program: any will do.
  shares = np.full(num_classes, 1 / num_classes)
  loss_fn = create_loss(config.loss, num_classes, shares)
  key, state = _shapes(model, tx)
  state = checkpoint.abstract_like(state, sharding.state_sharding(mesh, state))
  key = _whole(key, mesh)
  return compile_step(config, model, tx, loss_fn, mesh, state, key)


def largest_evaluation(
  config: ml_collections.ConfigDict,
  num_classes: int,
  devices: Sequence[jax.Device],
  sizes: Sequence[tuple[int, int]],
) -> tuple[Plan, jax.stages.Compiled]:
  """The evaluation of the images that need most memory.

  Args:
    config: Of the run.
    num_classes: Of its data set.
    devices: All of them; those of a process share its batches.
    sizes: Heights and widths of all images.
  """
  model = create_model(config.model, num_classes)
  own = [d for d in devices if d.process_index == devices[0].process_index]
  images = range(0, len(sizes), len(devices) // len(own))
  mesh = sharding.create_mesh(own, space=config.mesh.space)
  batches = batching.plan_batches(
    [sizes[position] for position in images],
    batch_size=config.eval.batch_size,
    stride=model.output_stride,
    shape_step=config.eval.shape_step,
    devices=sharding.num_shares(mesh),
  )
  plan = Plan(images, batches, mesh)
  _, state = _shapes(model, optax.identity())
  variables = _whole(state.variables, plan.mesh)
  view = evaluate.create_eval_step(
    model, num_classes, settings.get_training_protocol(config)
  )
  with jax.set_mesh(mesh):
    return plan, view.lower(variables, plan.largest()).compile()


def evaluated_sizes(config: ml_collections.ConfigDict) -> list[tuple[int, int]]:
  """Heights and widths of the evaluated split; [] where none is prepared."""
  dataset, split = prepared(config), config.data.eval_split
  if not dataset:
    return []
  return pipeline.image_sizes(
    dataset, split, range(dataset.num_examples(split))
  )


def _shapes(model, tx):
  """Of a run's key and its state."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  create = functools.partial(train_state.create_state, model, tx)
  return key, jax.eval_shape(create, key)


def _whole(tree, mesh):
  """Shapes that lie whole on each device."""
  everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), tree)
  return checkpoint.abstract_like(tree, everywhere)
