"""How the processes of a cluster or TPU pod become one program."""

import os

import jax
from absl import logging

from emanet_jax.errors import TryAgainError, UserError

MODES = ('auto', 'on', 'off')

# What launchers tell each process: how many stand side by side.
_SIDE_BY_SIDE = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE')


def join(mode: str, heartbeat_seconds: int) -> None:
  """Joins the other processes, which JAX finds by itself.

  It sees Slurm, Open MPI, Kubernetes jobs and Cloud TPU slices. To be called
  before any device is used.

  Args:
    mode: 'auto': where JAX sees a cluster; 'on': it must; 'off': never.
    heartbeat_seconds: For how long a process may be silent before the others
      take it for dead, and end.

  Raises:
    UserError: No cluster, where there must be one; the processes do not come
      together; or several stand side by side unjoined.
    TryAgainError: The network does not know the others yet.
  """
  if jax.distributed.is_initialized():  # by whoever calls this program
    return
  if mode == 'off':
    _refuse_to_stand_beside()
    return
  try:
    jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat_seconds)
  except OSError as error:  # as of a name, before its pod is up
    raise TryAgainError(
      f'--distributed={mode}: the other processes were not found ({error})'
    ) from error
  except (ValueError, TypeError, RuntimeError, KeyError) as error:
    no_cluster = 'coordinator_address should be defined' in str(error)
    if mode == 'auto' and no_cluster:
      _refuse_to_stand_beside()
      return
    raise UserError(
      f'--distributed={mode}: the processes did not come together ({error}). '
      'JAX sees Slurm, Open MPI, Kubernetes jobs and Cloud TPU slices by '
      'itself: start the same command there as each process (launch/), or give '
      '--distributed=off for one process with all devices of this machine'
    ) from error
  logging.info(
    'process %d of %d, with %d of %d devices',
    *(jax.process_index(), jax.process_count()),
    *(jax.local_device_count(), jax.device_count()),
  )


def _refuse_to_stand_beside() -> None:
  for name in _SIDE_BY_SIDE:
    count = os.environ.get(name, '')
    if count.isdecimal() and int(count) > 1:
      raise UserError(
        f'{name} is {count}: so many processes stand side by side, and each '
        'would train alone in one workdir. Leave --distributed at auto, under '
        'a launcher that JAX knows (launch/), or start one process'
      )
