"""A workdir's trained network, for those who only use it."""

import jax
import ml_collections
import orbax.checkpoint as ocp
from flax import traverse_util

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.runtime import sharding
from emanet_jax.state import checkpoint


def open_for_inference(
  config: ml_collections.ConfigDict, workdir: str
) -> ocp.CheckpointManager:
  """Opens the checkpoints of a workdir, only to read.

  Raises:
    UserError: There are none, or they are of another network or data set.
  """
  manager = checkpoint.open_manager(workdir)
  if manager.latest_step() is None:
    raise UserError(
      f'{manager.directory} holds no checkpoint; train first, with '
      f'--mode=train --workdir={workdir}'
    )
  checkpoint.check_config(manager, config, evaluating=True)
  return manager


def restore_for_inference(
  manager: ocp.CheckpointManager, spec: DatasetSpec
) -> dict:
  """The latest weights, on each of this process's devices.

  Args:
    manager: From `open_for_inference`.
    spec: Of the data set that the network is used with.

  Raises:
    UserError: The network was trained for other classes.
  """
  trained_for = checkpoint.trained_classes(manager)
  if trained_for not in (None, list(spec.classes)):
    raise UserError(
      f'{manager.directory} was trained for the classes {trained_for}, but '
      f'data set {spec.name} has {list(spec.classes)}; give the data.data_dir '
      'that it was trained with'
    )
  mesh = sharding.create_mesh(jax.local_devices())
  variables = checkpoint.restore_variables(manager, sharding.replicated(mesh))
  leaves = traverse_util.flatten_dict(variables['params'])
  for path, leaf in leaves.items():
    if path[-2] == 'classifier' and leaf.shape[-1] != spec.num_classes:
      raise UserError(
        f'{manager.directory}: its classifier has {leaf.shape[-1]} classes, '
        f'but data set {spec.name} has {spec.num_classes}; give the data.name, '
        'and for a folder of your own the data.data_dir, that it was trained '
        'with'
      )
  return variables
