"""Names and shapes of published PyTorch files, at any depth and width."""

import numpy as np


def conv(name, features, channels, size=1):
  return {f'{name}.weight': (features, channels, size, size)}


def norm(name, features):
  leaves = ('weight', 'bias', 'running_mean', 'running_var')
  shapes = {f'{name}.{leaf}': (features,) for leaf in leaves}
  return {**shapes, f'{name}.num_batches_tracked': ()}


def imagenet_shapes(stage_sizes=(3, 4, 6, 3), width=64, stem=(64, 64, 128)):
  """Names and shapes of a deep-stem ResNet of 1000 classes."""
  shapes, channels = {}, 3
  for index, features in zip((0, 3, 6), stem, strict=True):
    shapes |= conv(f'conv1.{index}', features, channels, 3)
    name = 'bn1' if index == 6 else f'conv1.{index + 1}'
    shapes |= norm(name, features)
    channels = features
  for stage, blocks in enumerate(stage_sizes):
    planes = width * 2**stage
    for i in range(blocks):
      block = f'layer{stage + 1}.{i}'
      shapes |= conv(f'{block}.conv1', planes, channels)
      shapes |= conv(f'{block}.conv2', planes, planes, 3)
      shapes |= conv(f'{block}.conv3', 4 * planes, planes)
      for j, features in enumerate((planes, planes, 4 * planes)):
        shapes |= norm(f'{block}.bn{j + 1}', features)
      if i == 0:
        shapes |= conv(f'{block}.downsample.0', 4 * planes, channels)
        shapes |= norm(f'{block}.downsample.1', 4 * planes)
      channels = 4 * planes
  return {**shapes, 'fc.weight': (1000, channels), 'fc.bias': (1000,)}


def authors_shapes(
  classes=21, channels=512, bases=64, out_channels=256, **backbone
):
  """Names and shapes of the authors' EMANet."""
  shapes = {}
  for name, shape in imagenet_shapes(**backbone).items():
    first, _, rest = name.partition('.')
    if first.startswith('layer'):
      shapes[f'extractor.{int(first[5:]) + 3}.{rest}'] = shape
    elif first != 'fc':
      place = {'conv1': '0', 'bn1': '1'}[first]
      shapes[f'extractor.{place}.{rest}'] = shape
  features = imagenet_shapes(**backbone)['fc.weight'][1]
  shapes |= conv('fc0.conv', channels, features, 3) | norm('fc0.bn', channels)
  shapes |= {'emau.mu': (1, channels, bases), 'emau.conv1.bias': (channels,)}
  shapes |= conv('emau.conv1', channels, channels)
  shapes |= conv('emau.conv2.0', channels, channels)
  shapes |= norm('emau.conv2.1', channels)
  shapes |= conv('fc1.0.conv', out_channels, channels, 3)
  shapes |= norm('fc1.0.bn', out_channels)
  shapes |= conv('fc2', classes, out_channels)
  return {**shapes, 'fc2.bias': (classes,)}


def weights(shapes):
  rng = np.random.default_rng(0)
  return {
    name: np.int64(7)
    if name.endswith('num_batches_tracked')
    else rng.random(shape, np.float32)
    for name, shape in shapes.items()
  }
