"""The names that PyTorch networks give to our network's tensors."""

import re
from collections.abc import Sequence

# PyTorch module → our module, for the stem, a block and the authors' head. Our
# modules called `norm` normalise, all others convolve.
_STEM = {
  'conv1.0': 'stem1/conv',
  'conv1.1': 'stem1/norm',
  'conv1.3': 'stem2/conv',
  'conv1.4': 'stem2/norm',
  'conv1.6': 'stem3/conv',
  'bn1': 'stem3/norm',
}
_BLOCK = {
  'conv1': 'conv1/conv',
  'bn1': 'conv1/norm',
  'conv2': 'conv2/conv',
  'bn2': 'conv2/norm',
  'conv3': 'conv3/conv',
  'bn3': 'conv3/norm',
}
_DOWNSAMPLE = {
  'downsample.0': 'downsample/conv',
  'downsample.1': 'downsample/norm',
}
_HEAD = {
  'fc0.conv': 'conv_in/conv',
  'fc0.bn': 'conv_in/norm',
  'emau.conv1': 'ema_unit/conv_in',
  'emau.conv2.0': 'ema_unit/conv_out/conv',
  'emau.conv2.1': 'ema_unit/conv_out/norm',
  'fc1.0.conv': 'conv_out/conv',
  'fc1.0.bn': 'conv_out/norm',
  'fc2': 'classifier',
}
_WITH_BIAS = ('emau.conv1', 'fc2')

# PyTorch leaf → (our collection, our leaf) of a normalisation.
_NORM_LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}

Path = tuple[str, ...]


def imagenet_names(stage_sizes: Sequence[int]) -> dict[str, Path]:
  """PyTorch tensor name → our path, of a deep-stem ResNet's backbone."""
  modules = dict(_STEM)
  for stage, blocks in enumerate(stage_sizes, start=1):
    for i in range(blocks):
      block = _BLOCK | (_DOWNSAMPLE if i == 0 else {})
      for name, ours in block.items():
        modules[f'layer{stage}.{i}.{name}'] = f'layer{stage}_{i}/{ours}'
  return _tensor_names(modules, 'backbone')


def authors_names(stage_sizes: Sequence[int]) -> dict[str, Path]:
  """PyTorch tensor name → our path, of the authors' EMANet."""
  names = {}
  for name, path in imagenet_names(stage_sizes).items():
    name = re.sub(r'^conv1\.', 'extractor.0.', name)
    name = re.sub(r'^bn1\.', 'extractor.1.', name)
    name = re.sub(r'^layer(\d)', lambda m: f'extractor.{int(m[1]) + 3}', name)
    names[name] = path
  names['emau.mu'] = ('bases', 'head', 'ema_unit', 'mu')
  return names | _tensor_names(_HEAD, 'head')


def _tensor_names(modules: dict[str, str], part: str) -> dict[str, Path]:
  names = {}
  for module, ours in modules.items():
    path = (part, *ours.split('/'))
    if path[-1] == 'norm':
      for leaf, (collection, our_leaf) in _NORM_LEAVES.items():
        names[f'{module}.{leaf}'] = (collection, *path, our_leaf)
    else:
      names[f'{module}.weight'] = ('params', *path, 'kernel')
    if module in _WITH_BIAS:
      names[f'{module}.bias'] = ('params', *path, 'bias')
  return names
