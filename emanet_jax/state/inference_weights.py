"""A workdir's trained network, for those who only use it."""

import dataclasses

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from flax import traverse_util

from emanet_jax.data.spec import DatasetSpec
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import compute_dtype
from emanet_jax.runtime import places, sharding
from emanet_jax.runtime.places import AnyPath
from emanet_jax.state import checkpoint
from emanet_jax.state.compatibility import as_today


@dataclasses.dataclass(frozen=True)
class Trained:
  """A step of a workdir that is going to be used.

  Attributes:
    config: Of the use: what it left open is as in the checkpoint or, of the
      dtype, as is good for this machine.
    manager: Has the step.
    step: Updates behind the weights.
    split: That the run was evaluated on while it trained.
    last_step: Of the run, when it is done.
  """

  config: ml_collections.ConfigDict
  manager: ocp.CheckpointManager
  step: int
  split: str
  last_step: int

  @property
  def path(self) -> AnyPath:
    """Folder of the step."""
    return places.as_path(self.manager.directory / str(self.step))


def open_for_inference(
  config: ml_collections.ConfigDict, workdir: str, step: int | None = None
) -> Trained:
  """Opens a step of a workdir, only to read.

  Args:
    config: Of the use. An empty `data.data_dir` means the checkpoint's.
    workdir: Folder of the run.
    step: None: the latest.

  Raises:
    UserError: There is none, or it is of another network or data set.
  """
  manager = checkpoint.open_manager(workdir)
  steps = sorted(manager.all_steps())
  if not steps:
    raise UserError(
      f'{manager.directory} holds no checkpoint; train first, with '
      f'--mode=train --workdir={workdir}'
    )
  step = steps[-1] if step is None else step
  if step not in steps:
    raise UserError(
      f'{manager.directory} has no step {step} (--checkpoint); it has '
      f'{", ".join(map(str, steps))}'
    )
  checkpoint.check_config(manager, config, step, evaluating=True)
  saved = as_today(checkpoint.read_config(manager, step))
  config = config.copy_and_resolve_references()
  config.model.dtype = compute_dtype(config.model.dtype)
  logging.info('%s, in %s', manager.directory / str(step), config.model.dtype)
  if not config.data.data_dir and saved['data.data_dir']:
    config.data.data_dir = saved['data.data_dir']
    logging.info("data.data_dir: the checkpoint's, %s", config.data.data_dir)
  return Trained(
    config, manager, step, saved['data.eval_split'], saved['train.steps']
  )


def restore_for_inference(trained: Trained, spec: DatasetSpec) -> dict:
  """The weights, on each of this process's devices.

  Args:
    trained: From `open_for_inference`.
    spec: Of the data set that the network is used with.

  Raises:
    UserError: The network was trained for other classes.
  """
  classes = checkpoint.trained_classes(trained.manager, trained.step)
  if classes not in (None, list(spec.classes)):
    raise UserError(
      f'{trained.path} was trained for the classes {classes}, but data set '
      f'{spec.name} has {list(spec.classes)}; give the data.data_dir that it '
      'was trained with'
    )
  mesh = sharding.create_mesh(jax.local_devices())
  variables = checkpoint.restore_variables(
    trained.manager, sharding.replicated(mesh), trained.step
  )
  leaves = traverse_util.flatten_dict(variables['params'])
  for path, leaf in leaves.items():
    if path[-2] == 'classifier' and leaf.shape[-1] != spec.num_classes:
      raise UserError(
        f'{trained.path}: its classifier has {leaf.shape[-1]} classes, '
        f'but data set {spec.name} has {spec.num_classes}; give the data.name, '
        'and for a folder of your own the data.data_dir, that it was trained '
        'with'
      )
  return variables
