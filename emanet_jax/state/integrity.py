"""Whether a checkpoint is what was saved."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from emanet_jax.errors import UserError, listed
from emanet_jax.runtime import places
from emanet_jax.runtime.places import AnyPath
from emanet_jax.state import digest

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# Of TensorStore's errors, which all are ValueErrors.
_CODES = (
  *('CANCELLED', 'DEADLINE_EXCEEDED', 'PERMISSION_DENIED'),
  *('RESOURCE_EXHAUSTED', 'UNAUTHENTICATED', 'UNAVAILABLE'),
)
_CLIENTS = ('aiohttp', 'gcsfs', 'google')  # of buckets


class DamagedError(UserError):
  """A step of a run is not what was saved."""

  def __init__(self, folder: AnyPath, what: str):
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


def restore_items(
  manager: ocp.CheckpointManager, step: int, **items
) -> dict[str, Any]:
  """Items of a step, as they were saved.

  Args:
    manager: Has the step.
    step: Its number.
    **items: Name to Orbax's arguments for its restoration.

  Raises:
    DamagedError: They are not what was saved.
    UserError: They could not be read, which says nothing about them.
  """
  folder = places.as_path(manager.directory / str(step))
  with _telling_damage(folder):
    if has_digest := 'digest' in _items(folder):
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
def _telling_damage(folder: AnyPath) -> Iterator[None]:
  """Tells what a damaged step raises, a dozen types, from other faults.

  A file system that is away, a missing right or a lack of memory say nothing
  about the step: it must not be set aside for them.
  """
  try:
    yield
  except Exception as error:
    what = f'{type(error).__name__}: {error}'
    if _is_of_the_place(error):
      what = ' '.join(what.split())[:300]
      raise UserError(
        f'{folder} cannot be read: {what}. It was left as it is; start again '
        'once that is mended'
      ) from error
    raise DamagedError(folder, what) from error


def _is_of_the_place(error: Exception) -> bool:
  """Whether a step may be sound, though it could not be read."""
  if isinstance(error, OSError):
    return not isinstance(error, _ABSENT)
  if type(error).__module__.partition('.')[0] in _CLIENTS:
    return True
  return isinstance(error, MemoryError | jax.errors.JaxRuntimeError) or any(
    code in str(error) for code in _CODES
  )


def saved_arrays(manager: ocp.CheckpointManager, step: int) -> Any:
  """Shapes and dtypes of a step's arrays, as the step itself says."""
  folder = places.as_path(manager.directory / str(step))
  with _telling_damage(folder):
    return manager.item_metadata(step)['state'].tree


def set_aside(manager: ocp.CheckpointManager, step: int) -> AnyPath:
  """Renames the folder of a damaged step; each process calls it."""
  folder = places.as_path(manager.directory / str(step))
  aside = folder.with_name(f'{step}.damaged')
  while aside.exists():  # as the same step may be damaged again
    aside = aside.with_name(f'{aside.name}.damaged')
  multihost_utils.sync_global_devices('all have seen the damage')
  if jax.process_index() == 0:
    folder.rename(aside)
  multihost_utils.sync_global_devices('the damaged step is set aside')
  manager.reload()
  return aside


def check_complete(folder: AnyPath) -> list[str]:
  """The items of a step, all of which are there.

  Raises:
    DamagedError: Some are not, or nobody can tell.
  """
  with _telling_damage(folder):
    written = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
    items, there = list(written['item_handlers']), _items(folder)
    if lacking := [name for name in items if name not in there]:
      raise FileNotFoundError(f'it lacks {", ".join(lacking)}')
  return items


def _items(folder: AnyPath) -> set[str]:
  """Names of a step's folders; raises where nobody can tell, as in buckets."""
  is_bucket = places.is_bucket(folder)  # which has no empty folders
  return {path.name for path in folder.iterdir() if is_bucket or path.is_dir()}


def with_digest(*, state: Any, **items: Any) -> ocp.args.Composite:
  """What a manager saves: arrays, JSON, and the digests of both."""
  digests = {name: digest.of_json(value) for name, value in items.items()}
  digests['state'] = digest.of_arrays(state)
  return ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    digest=ocp.args.JsonSave(digests),
    **{name: ocp.args.JsonSave(value) for name, value in items.items()},
  )
