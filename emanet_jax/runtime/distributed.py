"""How the processes of a cluster or TPU pod become one program."""

import jax

from emanet_jax.errors import UserError


def join() -> None:
  """Joins the other processes, which JAX finds by itself.

  Raises:
    UserError: It sees no cluster, or the processes do not come together.
  """
  try:
    jax.distributed.initialize()
  except (ValueError, TypeError, RuntimeError, OSError, KeyError) as error:
    raise UserError(
      f'--distributed: the processes did not come together ({error}). JAX sees '
      'Slurm, Open MPI, Kubernetes jobs and Cloud TPU pods by itself: start '
      'the same command there as each process (launch/), or leave the flag '
      'for one process with all devices of this machine'
    ) from error
