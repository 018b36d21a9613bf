"""Checkpoints: state, input iterator and configuration, saved as one.

A step is written beside its final name and renamed when complete, so a run
killed at any moment finds its last complete step. Nothing saved is overwritten.
Digests of all that is saved lie beside it, and are compared with what is read.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp

from emanet_jax.config import as_plain_dict
from emanet_jax.data.input.iterator import TrainIterator
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.state import background_saves, integrity
from emanet_jax.state.compatibility import differences
from emanet_jax.state.retention import BestScored
from emanet_jax.state.train_state import TrainState


def open_manager(
  workdir: str | os.PathLike[str],
  keep: int | None = None,
  *,
  keep_best: int = 0,
  scores: Mapping[int, float] | None = None,
) -> ocp.CheckpointManager:
  """The checkpoints of a workdir.

  Args:
    workdir: Folder of the run.
    keep: Latest steps to keep; older ones are deleted after a save.
      None: open what is there, only to read.
    keep_best: Steps to keep besides, those of the greatest scores.
    scores: Of the steps that have one; looked at anew after each save.

  Raises:
    UserError: Steps are to be kept where nothing can be written; or it is in a
      bucket that cannot be used.
  """
  workdir = places.absolute(places.as_path(workdir))
  if keep is not None:
    places.check_folder(workdir)
  policy = ocp.checkpoint_managers.LatestN(keep)
  if keep_best:
    best = BestScored(keep_best, scores)
    policy = ocp.checkpoint_managers.AnyPreservationPolicy([policy, best])
  with places.telling_faults(workdir):
    return ocp.CheckpointManager(
      workdir / 'checkpoints',
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        create=keep is not None,
        read_only=keep is None,
        cleanup_tmp_directories=keep is not None,  # of a run that was killed
      ),
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'data': ocp.JsonCheckpointHandler(),
        'config': ocp.JsonCheckpointHandler(),
        'digest': ocp.JsonCheckpointHandler(),
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
    UserError: The save before this one could not be written.
    RuntimeError: The step could not be taken on.
  """
  # Orbax copies the arrays off the devices before it returns, and writes them
  # while training goes on.
  step = int(state.step)
  args = integrity.with_digest(
    state=state, data=input_state, config=as_plain_dict(config)
  )
  with background_saves.telling_what_is_lost(manager):
    saved = manager.save(step, args=args)
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
    DamagedError: The step is not what was saved.
    UserError: It was made with other data, or cannot be read for another
      reason; the iterator is left as it was.
  """
  items = integrity.restore_items(
    manager,
    manager.latest_step(),
    state=ocp.args.StandardRestore(abstract_state),
    data=ocp.args.JsonRestore(),
  )
  try:
    iterator.set_state(items['data'])
  except UserError as error:
    raise UserError(f'{manager.directory}: {error}') from error
  return items['state']


def restore_variables(
  manager: ocp.CheckpointManager,
  sharding: jax.sharding.Sharding,
  step: int | None = None,
) -> dict:
  """A step's `params`, `batch_stats` and `bases`, so sharded; the latest's."""
  # The checkpoint itself says which arrays it has: no network is built.
  step = manager.latest_step() if step is None else step
  saved = integrity.saved_arrays(manager, step)
  abstract = abstract_like(saved, jax.tree.map(lambda _: sharding, saved))
  items = integrity.restore_items(
    manager, step, state=ocp.args.StandardRestore(abstract)
  )
  state = items['state']
  return {'params': state['params'], **state['model_state']}


def read_config(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """A step's configuration, as `as_plain_dict` made it.

  Raises:
    UserError: It cannot be read.
  """
  return integrity.restore_items(manager, step, config=ocp.args.JsonRestore())[
    'config'
  ]


def check_config(
  manager: ocp.CheckpointManager,
  config: ml_collections.ConfigDict,
  step: int | None = None,
  *,
  evaluating: bool = False,
) -> None:
  """Refuses a configuration that a checkpoint cannot be used with.

  Args:
    manager: Has at least one step.
    config: Of the run about to use the checkpoint.
    step: Of the checkpoint; None: the latest.
    evaluating: Only the network and the data set must agree, and of the
      network what its weights depend on.

  Raises:
    UserError: Naming every differing key, with both values; or that there is
      more to such a use than converted weights hold.
  """
  step = manager.latest_step() if step is None else step
  _check_content(manager, step, evaluating)
  saved = read_config(manager, step)
  differing = differences(saved, config, evaluating=evaluating)
  if differing:
    raise UserError(
      f'{manager.directory / str(step)} was made with another configuration:\n'
      + '\n'.join(differing)
      + '\nSet these values back, or use another --workdir.'
    )


def _check_content(manager, step: int, evaluating: bool) -> None:
  folder = places.as_path(manager.directory / str(step))
  init_from = f'--config.init_from={manager.directory.parent}'
  items = integrity.check_complete(folder)
  if not evaluating and 'data' not in items:
    raise UserError(
      f'{folder} holds weights, not a run to go on with; train in another '
      f'--workdir, with {init_from}'
    )
  if 'head' not in integrity.saved_arrays(manager, step)['params']:
    raise UserError(
      f'{folder} holds the weights of a backbone alone, which predict nothing; '
      f'train with {init_from}'
    )


def trained_classes(
  manager: ocp.CheckpointManager, step: int
) -> list[str] | None:
  """Class names of a step's data; None for converted weights."""
  if not (manager.directory / str(step) / 'data').exists():
    return None  # as `check_config` found it to be meant
  data = integrity.restore_items(manager, step, data=ocp.args.JsonRestore())[
    'data'
  ]
  return data.get('made_with', {}).get('classes')


def abstract_like(tree, shardings):
  """The same tree as shapes, dtypes and shardings, to restore to."""
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    *(tree, shardings),
  )
