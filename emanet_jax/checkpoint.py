"""Checkpoints: state, input iterator and configuration, saved as one.

A step is written beside its final name and renamed when complete, so a run
killed at any moment finds its last complete step. Nothing saved is overwritten.
"""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp

from emanet_jax.config import as_plain_dict, differences
from emanet_jax.data.iterator import TrainIterator
from emanet_jax.errors import UserError
from emanet_jax.train_state import TrainState


def open_manager(
  workdir: str | Path, keep: int | None = None
) -> ocp.CheckpointManager:
  """The checkpoints of a workdir.

  Args:
    workdir: Folder of the run.
    keep: Latest steps to keep; older ones are deleted after a save.
      None: open what is there, only to read.
  """
  return ocp.CheckpointManager(
    Path(workdir).absolute() / 'checkpoints',
    options=ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.LatestN(keep),
      create=keep is not None,
      read_only=keep is None,
    ),
    item_handlers={
      'state': ocp.StandardCheckpointHandler(),
      'data': ocp.JsonCheckpointHandler(),
      'config': ocp.JsonCheckpointHandler(),
    },
  )


def save(
  manager: ocp.CheckpointManager,
  state: TrainState,
  input_state: dict[str, Any],
  config: ml_collections.ConfigDict,
) -> None:
  """Starts saving a step in the background; the state may be donated after.

  Args:
    manager: Has no such step yet.
    state: After the step.
    input_state: Where the input stands, see `TrainIterator.get_state`; the same
      on each process, so that any number of them can go on from it.
    config: Of the run.

  Raises:
    RuntimeError: The step could not be taken on.
  """
  step = int(state.step)
  saved = manager.save(
    step,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave(input_state),
      config=ocp.args.JsonSave(as_plain_dict(config)),
    ),
  )
  if not saved:
    raise RuntimeError(f'step {step} was not saved in {manager.directory}')


def restore(
  manager: ocp.CheckpointManager,
  abstract_state: TrainState,
  iterator: TrainIterator,
) -> TrainState:
  """The latest state; the iterator is moved to where it stood.

  Args:
    manager: Has at least one step.
    abstract_state: Shapes, dtypes and shardings to restore to.
    iterator: Of the same data.

  Raises:
    UserError: The step cannot be read, or was made with other data; the
      iterator is left as it was.
  """
  items = _restore_latest(
    manager,
    state=ocp.args.StandardRestore(abstract_state),
    data=ocp.args.JsonRestore(),
  )
  try:
    iterator.set_state(items['data'])
  except UserError as error:
    raise UserError(f'{manager.directory}: {error}') from error
  return items['state']


def restore_variables(
  manager: ocp.CheckpointManager, sharding: jax.sharding.Sharding
) -> dict:
  """The latest step's `params`, `batch_stats` and `bases`, so sharded."""
  saved = manager.item_metadata(manager.latest_step())['state'].tree
  abstract = abstract_like(saved, sharding)
  items = _restore_latest(manager, state=ocp.args.StandardRestore(abstract))
  state = items['state']
  return {'params': state['params'], **state['model_state']}


def _restore_latest(
  manager: ocp.CheckpointManager, **items
) -> ocp.args.Composite:
  step = manager.latest_step()
  try:
    return manager.restore(step, args=ocp.args.Composite(**items))
  except Exception as error:  # a damaged step raises a dozen types
    raise UserError(
      f'{manager.directory / str(step)}: this checkpoint cannot be restored '
      f'({error}). If it is damaged, move its folder away: the run goes on '
      'from the step before it.'
    ) from error


def check_config(
  manager: ocp.CheckpointManager,
  config: ml_collections.ConfigDict,
  *,
  evaluating: bool = False,
) -> None:
  """Refuses a configuration that the latest checkpoint was not made with.

  Args:
    manager: Has at least one step.
    config: Of the run about to use the checkpoint.
    evaluating: Only the network and the data set must agree, and of the
      network what its weights depend on.

  Raises:
    UserError: Naming every differing key, with both values.
  """
  step = manager.latest_step()
  items = _restore_latest(manager, config=ocp.args.JsonRestore())
  differing = differences(items['config'], config, evaluating=evaluating)
  if differing:
    raise UserError(
      f'{manager.directory / str(step)} was made with another configuration:\n'
      + '\n'.join(differing)
      + '\nSet these values back, or use another --workdir.'
    )


def save_variables(directory: str | Path, variables: dict) -> None:
  """Writes weights alone, for `config.init_from`.

  Raises:
    UserError: Something is there already.
  """
  path = Path(directory).absolute()
  if path.exists():
    raise UserError(f'{path} exists; give a new folder, or delete it first')
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(path, variables)


def load_variables(directory: str | Path) -> dict:
  """Reads what `save_variables` wrote.

  Raises:
    UserError: It is not there or cannot be read.
  """
  path = Path(directory).absolute()
  if not path.is_dir():
    raise UserError(
      f'init_from: {path} is not a folder; write one with python -m '
      'emanet_jax.tools.convert_torch SRC.pth DST'
    )
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return checkpointer.restore(path)
  except Exception as error:  # a damaged folder raises a dozen types
    raise UserError(
      f'init_from: {path} cannot be read ({error}); convert it again'
    ) from error


def abstract_like(tree, sharding: jax.sharding.Sharding):
  """The same tree as shapes, dtypes and one sharding, to restore to."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
