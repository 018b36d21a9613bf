"""The weights of a workdir, without the rest of its checkpoints."""

import os

import jax
import ml_collections
import numpy as np

from emanet_jax.config import as_plain_dict
from emanet_jax.errors import UserError
from emanet_jax.runtime import places
from emanet_jax.state import checkpoint, integrity


def save_weights(
  workdir: str | os.PathLike[str],
  variables: dict,
  config: ml_collections.ConfigDict,
  step: int,
) -> None:
  """Writes a workdir that holds weights: to evaluate, or for `init_from`.

  Args:
    workdir: Is not there yet.
    variables: Of a network, or of its backbone alone.
    config: What a run with such a network is configured with.
    step: Updates behind them.

  Raises:
    UserError: Something is there already, or it cannot be written.
  """
  path = places.absolute(places.as_path(workdir).expanduser())
  if path.exists():
    raise UserError(f'{path} exists; give a new folder, or delete it first')
  places.check_folder(path)
  state = {
    'step': np.int32(step),
    'params': variables['params'],
    'model_state': {k: v for k, v in variables.items() if k != 'params'},
  }
  with checkpoint.open_manager(path, keep=1) as manager:
    manager.save(
      step,
      args=integrity.with_digest(state=state, config=as_plain_dict(config)),
    )


def load_weights(place: str | os.PathLike[str]) -> tuple[dict, int]:
  """Reads the variables of a workdir, or of one step of it.

  Args:
    place: A workdir (its latest step is taken), or WORKDIR/checkpoints/STEP.

  Returns:
    The variables as NumPy arrays, and the step.

  Raises:
    UserError: It is not there or cannot be read.
  """
  path, step = places.absolute(places.as_path(place).expanduser()), None
  if path.name.isdecimal() and path.parent.name == 'checkpoints':
    path, step = path.parents[1], int(path.name)
  with checkpoint.open_manager(path) as manager:
    steps = sorted(manager.all_steps())
    if not steps or step not in (None, *steps):
      raise UserError(
        f'{place} is no checkpoint: there are the steps {steps} in '
        f'{manager.directory}; give a --workdir that was trained in, a folder '
        'that tools.convert_torch wrote, or WORKDIR/checkpoints/STEP'
      )
    step = steps[-1] if step is None else step
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.device_get(
      checkpoint.restore_variables(manager, device, step)
    ), step
