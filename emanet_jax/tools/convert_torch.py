"""PyTorch weights in: the authors' EMANet and the deep-stem ImageNet ResNets.

  python -m emanet_jax.tools.convert_torch final.pth pretrained/emanet101
  ... --config.init_from=pretrained/emanet101

The source is recognised by its tensors' names, its depth, widths and classes
by their shapes. Every tensor is accounted for: one that is unknown, missing or
of another shape than the network's is an error that lists both sides.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, logging
from flax import traverse_util

from emanet_jax import checkpoint
from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model

# PyTorch leaf → (collection, our leaf) under a normalisation layer.
_NORM_LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}

# Module names, PyTorch pattern → (our path, is it a normalisation layer?).
_STEM = {
  '0': ('stem1/conv', False),
  '1': ('stem1/norm', True),
  '3': ('stem2/conv', False),
  '4': ('stem2/norm', True),
  '6': ('stem3/conv', False),
}
_BLOCK = {
  'conv1': ('conv1/conv', False),
  'conv2': ('conv2/conv', False),
  'conv3': ('conv3/conv', False),
  'bn1': ('conv1/norm', True),
  'bn2': ('conv2/norm', True),
  'bn3': ('conv3/norm', True),
  'downsample.0': ('downsample/conv', False),
  'downsample.1': ('downsample/norm', True),
}
_AUTHORS_HEAD = {
  'fc0.conv': ('conv_in/conv', False),
  'fc0.bn': ('conv_in/norm', True),
  'emau.conv1': ('ema_unit/conv_in', False),
  'emau.conv2.0': ('ema_unit/conv_out/conv', False),
  'emau.conv2.1': ('ema_unit/conv_out/norm', True),
  'fc1.0.conv': ('conv_out/conv', False),
  'fc1.0.bn': ('conv_out/norm', True),
  'fc2': ('classifier', False),
}


def variables_from_torch(state_dict: dict[str, np.ndarray]) -> dict:
  """The Flax variables that a PyTorch state dict holds.

  Args:
    state_dict: Name → array, in PyTorch's layout, of the authors' EMANet
      (`extractor.*, fc0.*, emau.*, fc1.*, fc2.*`) or of a deep-stem ImageNet
      ResNet (`conv1.{0,1,3,4,6}.*, bn1.*, layer{1..4}.*, fc.*`). A leading
      `module.` is dropped; `num_batches_tracked` counters and the ImageNet
      classifier `fc` have no counterpart.

  Returns:
    For an EMANet the whole `{'params', 'batch_stats', 'bases'}` of
    `create_model`; for a ResNet `{'params', 'batch_stats'}` of the backbone
    alone. float32 NumPy arrays.

  Raises:
    UserError: An unknown source, or any tensor unknown, missing or misshaped.
  """
  state_dict = {
    name.removeprefix('module.'): np.asarray(value)
    for name, value in state_dict.items()
    if not name.endswith('num_batches_tracked')
  }
  if 'emau.mu' in state_dict:
    translate, ignored = _authors_module, ()
  elif 'conv1.0.weight' in state_dict and 'layer1.0.conv1.weight' in state_dict:
    translate, ignored = _imagenet_module, ('fc.weight', 'fc.bias')
  else:
    raise UserError(
      "not a known network: expected the authors' EMANet (with 'emau.mu') or "
      "a deep-stem ImageNet ResNet (with 'conv1.0.weight'), got tensors like "
      f'{sorted(state_dict)[:5]}'
    )
  found, origin, unknown = {}, {}, []
  for name, value in state_dict.items():
    if name in ignored:
      continue
    path = _path(name, translate)
    if path is None:
      unknown.append(f'{name} {value.shape}')
      continue
    found[path] = _to_flax(name, value)
    origin[path] = name
  expected = _expected_shapes(found, whole='emau.mu' in state_dict)
  _check(found, origin, expected, unknown)
  return traverse_util.unflatten_dict(found)


def _authors_module(module: str) -> tuple[str, bool] | None:
  """Our path of one of the authors' modules, and whether it normalises."""
  if module in _AUTHORS_HEAD:
    path, is_norm = _AUTHORS_HEAD[module]
    return f'head/{path}', is_norm
  if module == 'extractor.1':
    return _imagenet_module('bn1')
  if match := re.fullmatch(r'extractor\.0\.(\d)', module):
    return _imagenet_module(f'conv1.{match[1]}')
  if match := re.fullmatch(r'extractor\.([4-7])\.(.+)', module):
    return _imagenet_module(f'layer{int(match[1]) - 3}.{match[2]}')
  return None


def _imagenet_module(module: str) -> tuple[str, bool] | None:
  """The same for the backbone under its flat names."""
  if module == 'bn1':
    return 'backbone/stem3/norm', True
  stem = module.removeprefix('conv1.')
  if stem != module and stem in _STEM:
    path, is_norm = _STEM[stem]
    return f'backbone/{path}', is_norm
  match = re.fullmatch(r'layer([1-4])\.(\d+)\.(.+)', module)
  if match and match[3] in _BLOCK:
    path, is_norm = _BLOCK[match[3]]
    return f'backbone/layer{match[1]}_{match[2]}/{path}', is_norm
  return None


def _path(name: str, translate) -> tuple[str, ...] | None:
  """Our path, collection first, of a PyTorch tensor's name."""
  if name == 'emau.mu':
    return ('bases', 'head', 'ema_unit', 'mu')
  module, _, leaf = name.rpartition('.')
  target = translate(module)
  if target is None:
    return None
  path, is_norm = target
  if is_norm and leaf in _NORM_LEAVES:
    collection, leaf = _NORM_LEAVES[leaf]
  elif not is_norm and leaf in ('weight', 'bias'):
    collection, leaf = 'params', {'weight': 'kernel'}.get(leaf, leaf)
  else:
    return None
  return (collection, *path.split('/'), leaf)


def _to_flax(name: str, value: np.ndarray) -> np.ndarray:
  value = np.asarray(value, np.float32)
  if name == 'emau.mu' and value.ndim == 3:  # [1, C, K] → [K, C]
    value = value[0].T
  elif value.ndim == 4:  # [out, in, h, w] → [h, w, in, out]
    value = value.transpose(2, 3, 1, 0)
  return np.ascontiguousarray(value)


def _expected_shapes(found: dict, whole: bool) -> dict[tuple, tuple]:
  """Shapes of the network that the tensors' own sizes call for."""

  def size(*path, axis=-1, default=1):
    value = found.get(('params', *path))
    return default if value is None else value.shape[axis]

  blocks = [set() for _ in range(4)]
  for path in found:
    if match := re.fullmatch(r'layer(\d)_(\d+)', path[2]):
      blocks[int(match[1]) - 1].add(int(match[2]))
  config = default_config().model
  backbone, head = config.backbone, config.head
  backbone.stage_sizes = tuple(max(b, default=0) + 1 for b in blocks)
  backbone.multi_grid = (1,) * backbone.stage_sizes[3]
  backbone.width = size('backbone', 'layer1_0', 'conv1', 'conv', 'kernel')
  backbone.stem_widths = tuple(
    size('backbone', f'stem{i}', 'conv', 'kernel') for i in (1, 2, 3)
  )
  head.channels = size('head', 'conv_in', 'conv', 'kernel')
  head.out_channels = size('head', 'conv_out', 'conv', 'kernel')
  bases = found.get(('bases', 'head', 'ema_unit', 'mu'))
  head.num_bases = 1 if bases is None else bases.shape[0]
  model = create_model(config, size('head', 'classifier', 'kernel'))
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 65, 65, 3))
  )
  return {
    path: leaf.shape
    for path, leaf in traverse_util.flatten_dict(shapes).items()
    if whole or path[1] == 'backbone'
  }


def _check(found, origin, expected, unknown) -> None:
  """Raises unless found and expected have the same paths and shapes."""
  missing = [
    f'{"/".join(path)} {shape}'
    for path, shape in expected.items()
    if path not in found
  ]
  unknown = unknown + [
    f'{origin[path]} {found[path].shape}'
    for path in found
    if path not in expected
  ]
  misshaped = [
    f'{origin[path]}: file {found[path].shape}, network {expected[path]}'
    for path in found
    if path in expected and found[path].shape != expected[path]
  ]
  if missing or unknown or misshaped:
    lines = [
      f'{title}: {items}'
      for title, items in (
        ('tensors the network does not have', unknown),
        ('parameters the file does not have', missing),
        ('tensors of another shape (both in Flax layout)', misshaped),
      )
      if items
    ]
    raise UserError('these weights do not fit:\n' + '\n'.join(lines))


def read_pth(path: str) -> dict[str, np.ndarray]:
  """Name → array of a `.pth` file, read without executing its pickle.

  Raises:
    UserError: PyTorch is not installed, or the file is missing, unreadable or
      holds anything but tensors.
  """
  try:
    import torch
  except ImportError:
    raise UserError(
      'reading .pth files needs PyTorch: pip install torch'
    ) from None
  if not Path(path).is_file():
    raise UserError(f'{path}: no such file')
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises a dozen types for a bad file
    raise UserError(f'{path}: not a readable .pth file: {error}') from error
  content = content.get('net', content)  # the authors' {'net', 'step'}
  return {name: tensor.numpy() for name, tensor in content.items()}


def main(argv: list[str]) -> None:
  """Converts the file SRC into the new folder DST."""
  if len(argv) != 3:
    raise app.UsageError(
      'give two paths: python -m emanet_jax.tools.convert_torch SRC.pth DST'
    )
  _, source, destination = argv
  variables = variables_from_torch(read_pth(source))
  checkpoint.save_variables(destination, variables)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  logging.info('%s: %d numbers written to %s', source, count, destination)


if __name__ == '__main__':
  app.run(main)
