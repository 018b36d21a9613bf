"""Weights from PyTorch networks, and back to them.

  python -m emanet_jax.tools.convert_torch final.pth pretrained/emanet101
  python -m emanet_jax.tools.convert_torch --reverse runs/voc emanet101.pth

Reads the authors' EMANet; mmsegmentation's, and other networks of its that have
a head here (`models/pytorch/mmseg_*heads.py`); torchvision's FCN and DeepLabV3;
and backbones: ResNets, the authors' and mmsegmentation's with a deep stem,
torchvision's with a 7×7 one, and mmsegmentation's MiT; from `.pth` files (with
PyTorch, but never running what a pickle may hold) or `.safetensors` (without).
What is written is a workdir: a whole network can be evaluated, and both it and
a backbone can be started from, with `--config.init_from=DST`.

`--reverse` writes a workdir's latest step, or the one in
WORKDIR/checkpoints/STEP, by the names of the network that it is like: the
authors' as a rule.
"""

import os
import shlex
import sys

import numpy as np
from absl import app, flags, logging
from flax import traverse_util
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from emanet_jax.config import as_plain_dict, default_config
from emanet_jax.errors import UserError
from emanet_jax.models.pytorch.weights import (
  network_from_torch,
  torch_from_variables,
  variables_from_torch,
)
from emanet_jax.runtime import places
from emanet_jax.runtime.logs import log_own_progress
from emanet_jax.state import weights

__all__ = ['network_from_torch', 'read', 'variables_from_torch', 'write']

_REVERSE = flags.DEFINE_bool(
  'reverse', False, 'From a workdir to a PyTorch file.'
)


def read(path: str) -> tuple[dict[str, np.ndarray], int]:
  """Name → array of a file of weights; and the step, 0 where it tells none.

  Args:
    path: `.safetensors`; else what torch.save wrote: a state dict, alone or
      as `net` (the authors) or `state_dict` (mmsegmentation) of a dictionary.

  Raises:
    UserError: The file is missing, unreadable or holds no tensors, or PyTorch
      is needed and not installed.
  """
  if not os.path.isfile(path):
    raise UserError(f'{path}: no such file')
  if not path.endswith('.safetensors'):
    return _read_pth(path)
  try:
    return safetensors.load_file(path), 0
  except (SafetensorError, KeyError, TypeError) as error:
    raise UserError(
      f'{path}: not a readable .safetensors file: {error}'
    ) from error


def _import_torch():
  try:
    import torch
  except ImportError:
    raise UserError(
      '.pth files need PyTorch: pip install torch. Or use .safetensors, which '
      'does not.'
    ) from None
  return torch


def _read_pth(path):
  torch = _import_torch()
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises a dozen types for a bad file
    raise UserError(
      f'{path}: not a readable .pth file: {error}\nWhere you trust its source, '
      'load it yourself and save its dictionary of tensors alone'
    ) from error
  step = 0
  if isinstance(content, dict):
    if isinstance(content.get('step'), int):
      step = content['step']
    content = content.get('net', content.get('state_dict', content))
  if not isinstance(content, dict) or not all(
    isinstance(value, torch.Tensor) for value in content.values()
  ):
    raise UserError(f'{path}: holds no state dict (names and tensors)')
  return {
    name: (x.float() if x.is_floating_point() else x).numpy()
    for name, x in content.items()
  }, step


def write(
  path: str, tensors: dict[str, np.ndarray], key: str, step: int
) -> None:
  """Writes tensors as `read` reads them.

  Args:
    path: New file, `.safetensors` or what torch.save is to write.
    tensors: Name → array.
    key: Of the state dict in a `.pth` file; '' for the state dict alone.
    step: Kept in a `.pth` file with a key.

  Raises:
    UserError: Something is there already, it cannot be written, or PyTorch is
      needed.
  """
  places.check_new_file(path)
  if path.endswith('.safetensors'):
    safetensors.save_file(tensors, path)
    return
  torch = _import_torch()
  content = {name: torch.from_numpy(value) for name, value in tensors.items()}
  torch.save({key: content, 'step': step} if key else content, path)


def convert(source: str, destination: str) -> None:
  """Turns a file of weights into a new workdir."""
  tensors, step = read(source)
  variables, model_config = network_from_torch(tensors)
  config = default_config()
  default = traverse_util.flatten_dict(as_plain_dict(config.model), sep='.')
  config.model = model_config
  config.data.name = ''  # a file does not say which classes they are
  weights.save_weights(destination, variables, config, step)
  flat = traverse_util.flatten_dict(as_plain_dict(model_config), sep='.')
  changes = [
    f'--config.model.{key}={tuple(value) if isinstance(value, list) else value}'
    for key, value in flat.items()
    if value != default.get(key)
  ]
  logging.info('%s written to %s', source, destination)
  logging.info('its network: the default, %s', shlex.join(changes))


def convert_back(source: str, destination: str) -> None:
  """Turns a workdir, or one step of it, into a new file of weights."""
  places.check_new_file(destination)
  variables, step = weights.load_weights(source)
  tensors, layout = torch_from_variables(variables, step)
  write(destination, tensors, layout.key, step)
  logging.info('%s written to %s as %s', source, destination, layout.title)


def main(argv: list[str]) -> None:
  """Converts SRC into DST."""
  if len(argv) != 3:
    raise app.UsageError(
      'give two paths: python -m emanet_jax.tools.convert_torch SRC.pth DST'
    )
  log_own_progress()
  try:
    paths = map(os.path.expanduser, argv[1:])
    (convert_back if _REVERSE.value else convert)(*paths)
  except (UserError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(main)
