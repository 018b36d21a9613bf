"""PyTorch weights in: the authors' EMANet and the deep-stem ImageNet ResNets.

  python -m emanet_jax.tools.convert_torch final.pth pretrained/emanet101
  ... --config.init_from=pretrained/emanet101

The source is recognised by its tensors' names, its depth, widths and classes
by their shapes. Every tensor is accounted for: one that is unknown, missing or
of another shape than the network's is an error that lists both sides.
"""

import os
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, logging
from flax import traverse_util

from emanet_jax import checkpoint
from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.models.torch_names import Path, authors_names, imagenet_names


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
  tensors = {
    name.removeprefix('module.'): np.asarray(value)
    for name, value in state_dict.items()
    if not name.endswith('num_batches_tracked')
  }
  if 'emau.mu' in tensors:
    names = authors_names(_stage_sizes(tensors, r'extractor\.([4-7])', first=4))
  elif 'conv1.0.weight' in tensors:
    names = imagenet_names(_stage_sizes(tensors, r'layer([1-4])', first=1))
    tensors = {k: v for k, v in tensors.items() if not k.startswith('fc.')}
  else:
    raise UserError(
      "not a known network: expected the authors' EMANet (with 'emau.mu') or "
      "a deep-stem ImageNet ResNet (with 'conv1.0.weight'), got tensors like "
      f'{sorted(tensors)[:5]}'
    )
  _refuse(
    {
      'the network has no place for': [
        f'{name} {tensors[name].shape}' for name in tensors.keys() - names
      ],
      'the file lacks': [
        f'{name} ({"/".join(names[name])})' for name in names.keys() - tensors
      ],
      'nothing is in': [
        f'{name} {value.shape}'
        for name, value in tensors.items()
        if not value.size
      ],
    }
  )
  found = {names[n]: _to_flax(value) for n, value in tensors.items()}
  expected = _expected_shapes(found)
  _refuse(
    {
      'shapes differ (in Flax layout) at': [
        f'{name}: file {found[path].shape}, network {expected[path]}'
        for name, path in names.items()
        if found[path].shape != expected[path]
      ]
    }
  )
  return traverse_util.unflatten_dict(found)


def _stage_sizes(tensors: dict, stage: str, first: int) -> list[int]:
  """Blocks of each stage, from the names of their tensors."""
  sizes = [1] * 4
  for name in tensors:
    if match := re.match(stage + r'\.(\d+)\.', name):
      index = int(match[1]) - first
      sizes[index] = max(sizes[index], int(match[2]) + 1)
  return sizes


def _to_flax(value: np.ndarray) -> np.ndarray:
  value = np.asarray(value, np.float32)
  if value.ndim == 4:  # [out, in, h, w] → [h, w, in, out]
    value = value.transpose(2, 3, 1, 0)
  elif value.ndim == 3 and value.shape[0] == 1:  # μ⁰: [1, C, K] → [K, C]
    value = value[0].T
  return value.copy()


def _expected_shapes(found: dict[Path, np.ndarray]) -> dict[Path, tuple]:
  """Shapes of the network whose widths the tensors themselves give."""

  def width(*path):
    value = found.get(('params', *path, 'kernel'))
    return 1 if value is None else value.shape[-1]

  blocks = [
    len({p[2] for p in found if p[2].startswith(f'layer{stage}_')})
    for stage in (1, 2, 3, 4)
  ]
  config = default_config().model
  config.backbone.stage_sizes = tuple(blocks)
  config.backbone.multi_grid = (1,) * blocks[3]
  config.backbone.width = width('backbone', 'layer1_0', 'conv1', 'conv')
  config.backbone.stem_widths = tuple(
    width('backbone', f'stem{i}', 'conv') for i in (1, 2, 3)
  )
  config.head.channels = width('head', 'conv_in', 'conv')
  config.head.out_channels = width('head', 'conv_out', 'conv')
  bases = found.get(('bases', 'head', 'ema_unit', 'mu'))
  config.head.num_bases = 1 if bases is None else bases.shape[0]
  model = create_model(config, width('head', 'classifier'))
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 65, 65, 3))
  )
  flat = traverse_util.flatten_dict(shapes)
  return {path: leaf.shape for path, leaf in flat.items()}


def _refuse(problems: dict[str, list[str]]) -> None:
  """Raises if any problem has instances, listing them all."""
  lines = [
    f'{title}: ' + ', '.join(sorted(instances))
    for title, instances in problems.items()
    if instances
  ]
  if lines:
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
  if not os.path.isfile(path):
    raise UserError(f'{path}: no such file')
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch raises a dozen types for a bad file
    raise UserError(f'{path}: not a readable .pth file: {error}') from error
  if isinstance(content, dict):
    content = content.get('net', content)  # the authors' {'net', 'step'}
  if not isinstance(content, dict) or not all(
    isinstance(value, torch.Tensor) for value in content.values()
  ):
    raise UserError(f'{path}: holds no state dict (names and tensors)')
  return {name: tensor.numpy() for name, tensor in content.items()}


def main(argv: list[str]) -> None:
  """Converts the file SRC into the new folder DST."""
  if len(argv) != 3:
    raise app.UsageError(
      'give two paths: python -m emanet_jax.tools.convert_torch SRC.pth DST'
    )
  _, source, destination = argv
  try:
    variables = variables_from_torch(read_pth(source))
    checkpoint.save_variables(destination, variables)
  except UserError as error:
    sys.exit(f'error: {error}')
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  logging.info('%s: %d numbers written to %s', source, count, destination)


if __name__ == '__main__':
  app.run(main)
