"""Checkpoints: state, input iterator and configuration, saved as one.

A step is written beside its final name and renamed when complete, so a run
killed at any moment finds its last complete step. Nothing saved is overwritten.
Digests of all that is saved lie beside it, and are compared with what is read.
"""

import contextlib
import dataclasses
import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax.config import as_plain_dict
from emanet_jax.data.input.iterator import TrainIterator
from emanet_jax.errors import UserError, listed
from emanet_jax.runtime import places
from emanet_jax.state import digest
from emanet_jax.state.compatibility import differences
from emanet_jax.state.train_state import TrainState


def open_manager(
  workdir: str | Path,
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
    UserError: Steps are to be kept where nothing can be written.
  """
  if keep is not None:
    places.check_folder(workdir)
  policy = ocp.checkpoint_managers.LatestN(keep)
  if keep_best:
    best = _BestScored(keep_best, scores)
    policy = ocp.checkpoint_managers.AnyPreservationPolicy([policy, best])
  return ocp.CheckpointManager(
    Path(workdir).absolute() / 'checkpoints',
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


class _Scored(NamedTuple):
  """Orbax's PolicyCheckpointInfo."""

  step: int
  metrics: float
  time: datetime.datetime


@dataclasses.dataclass(frozen=True)
class _BestScored:
  """Orbax's BestN, by scores that come after a step is saved.

  A step is saved before it is evaluated, so that a kill in between loses
  nothing; Orbax's own metrics would have to be there at the save.
  """

  n: int
  scores: Mapping[int, float]

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any):
    """Which of the checkpoints to keep, in Orbax's terms."""
    scored = [
      _Scored(c.step, self.scores[c.step], c.time)
      for c in checkpoints
      if not math.isnan(self.scores.get(c.step, math.nan))
    ]
    best = ocp.checkpoint_managers.BestN(get_metric_fn=float, n=self.n)
    kept = best.should_preserve(scored, context=context)
    steps = {c.step for c, keep in zip(scored, kept, strict=True) if keep}
    return [c.step in steps for c in checkpoints]


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
  # Orbax copies the arrays off the devices before it returns, and writes them
  # while training goes on.
  step = int(state.step)
  saved = manager.save(
    step,
    args=with_digest(
      state=state, data=input_state, config=as_plain_dict(config)
    ),
  )
  if not saved:
    raise RuntimeError(f'step {step} was not saved in {manager.directory}')


def with_digest(*, state: Any, **items: Any) -> ocp.args.Composite:
  """What a manager saves: arrays, JSON, and the digests of both."""
  digests = {name: digest.of_json(value) for name, value in items.items()}
  digests['state'] = digest.of_arrays(state)
  return ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    digest=ocp.args.JsonSave(digests),
    **{name: ocp.args.JsonSave(value) for name, value in items.items()},
  )


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
  items = _restore(
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
  abstract = abstract_like(_saved_arrays(manager, step), sharding)
  items = _restore(manager, step, state=ocp.args.StandardRestore(abstract))
  state = items['state']
  return {'params': state['params'], **state['model_state']}


class DamagedError(UserError):
  """A step of a run is not what was saved."""

  def __init__(self, folder: Path, what: str):
    """Names the step.

    Args:
      folder: Of the step.
      what: Is wrong with it.
    """
    what = ' '.join(what.split())[:300] or 'no reason is given'
    super().__init__(
      f'{folder} is damaged: {what}. Training sets such a step aside and goes '
      'on from the newest intact one; evaluation, prediction and export take '
      'any step by --checkpoint'
    )


def _restore(
  manager: ocp.CheckpointManager, step: int, **items
) -> dict[str, Any]:
  """Items of a step, as they were saved."""
  folder = Path(manager.directory / str(step))
  with _telling_damage(folder):
    if has_digest := (folder / 'digest').exists():
      items['digest'] = ocp.args.JsonRestore()
    found = dict(
      manager.restore(step, args=ocp.args.Composite(**items)).items()
    )
  if not has_digest:
    logging.info('%s is of an older version: it has no digest', folder)
    return found
  saved = found.pop('digest')
  for name, value in found.items():
    if name == 'state':
      now = digest.of_arrays(value)
      changed = [path for path in now if saved[name].get(path) != now[path]]
      if changed:
        raise DamagedError(folder, f'the numbers of {listed(changed)} differ')
    elif digest.of_json(value) != saved.get(name):
      raise DamagedError(folder, f'{name} is not what was saved')
  return found


@contextlib.contextmanager
def _telling_damage(folder: Path) -> Iterator[None]:
  """Tells what only a damaged step raises from faults of its place."""
  try:
    yield
  except PermissionError:
    raise
  except Exception as error:  # a damaged step raises a dozen types
    raise DamagedError(folder, f'{type(error).__name__}: {error}') from error


def _saved_arrays(manager: ocp.CheckpointManager, step: int) -> Any:
  """Shapes and dtypes of a step's arrays, as the step itself says."""
  folder = Path(manager.directory / str(step))
  with _telling_damage(folder):
    return manager.item_metadata(step)['state'].tree


def set_aside(manager: ocp.CheckpointManager, step: int) -> Path:
  """Renames the folder of a damaged step; each process calls it."""
  folder = Path(manager.directory / str(step))
  aside = folder.with_name(f'{step}.damaged')
  while aside.exists():  # as the same step may be damaged again
    aside = aside.with_name(f'{aside.name}.damaged')
  multihost_utils.sync_global_devices('all have seen the damage')
  if jax.process_index() == 0:
    folder.rename(aside)
  multihost_utils.sync_global_devices('the damaged step is set aside')
  manager.reload()
  return aside


def read_config(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """A step's configuration, as `as_plain_dict` made it.

  Raises:
    UserError: It cannot be read.
  """
  return _restore(manager, step, config=ocp.args.JsonRestore())['config']


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
  folder = Path(manager.directory / str(step))
  init_from = f'--config.init_from={manager.directory.parent}'
  with _telling_damage(folder):
    written = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
    expected = written['item_handlers']
    if lacking := [name for name in expected if not (folder / name).is_dir()]:
      raise FileNotFoundError(f'it lacks {", ".join(lacking)}')
  if not evaluating and 'data' not in expected:
    raise UserError(
      f'{folder} holds weights, not a run to go on with; train in another '
      f'--workdir, with {init_from}'
    )
  if 'head' not in _saved_arrays(manager, step)['params']:
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
  data = _restore(manager, step, data=ocp.args.JsonRestore())['data']
  return data.get('made_with', {}).get('classes')


def abstract_like(tree, sharding: jax.sharding.Sharding):
  """The same tree as shapes, dtypes and one sharding, to restore to."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
