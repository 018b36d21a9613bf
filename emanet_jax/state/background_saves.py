"""Saves that go on while training does, and what is told when one is lost."""

import contextlib
from collections.abc import Iterator

import orbax.checkpoint as ocp

from emanet_jax.errors import UserError


def check(manager: ocp.CheckpointManager) -> None:
  """Raises a UserError if a save in the background could not be written."""
  with telling_what_is_lost(manager):
    manager.check_for_errors()


def finish(manager: ocp.CheckpointManager) -> None:
  """Waits for the save in the background; raises as `check`."""
  with telling_what_is_lost(manager):
    manager.wait_until_finished()


@contextlib.contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[ocp.CheckpointManager]:
  """Ends with the manager closed; an error inside is the one that is told."""
  try:
    yield manager
  except BaseException:
    with contextlib.suppress(Exception):  # of the same save, once more
      manager.close()
    raise
  finish(manager)
  manager.close()


def _complete_steps(folder) -> list[int]:
  """Numbers of the steps; none where they cannot be looked at now."""
  try:
    return sorted(ocp.utils.checkpoint_steps(folder))
  except Exception:  # a bucket that cannot be written to, nor listed
    return []


@contextlib.contextmanager
def telling_what_is_lost(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Turns what a save raises into one line, with the steps that are there."""
  try:
    yield
  except Exception as error:  # of files: as many types as there are threads
    folder = manager.directory
    steps = _complete_steps(folder)
    complete = ', '.join(map(str, steps)) or 'none'
    what = ' '.join(str(error).split())[:200]
    raise UserError(
      f'a checkpoint could not be written to {folder} ({what}). Complete steps '
      f'are there: {complete}. Make room, or mend what is wrong there; the '
      'same command then goes on from the last of them'
    ) from error
