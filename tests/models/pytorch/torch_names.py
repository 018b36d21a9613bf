"""Names and shapes of published PyTorch files, at any depth and width."""

import numpy as np

# Of a stem's convolutions, each with its normalisation.
DEEP = (('conv1.0', 'conv1.1'), ('conv1.3', 'conv1.4'), ('conv1.6', 'bn1'))
V1C = (('stem.0', 'stem.1'), ('stem.3', 'stem.4'), ('stem.6', 'stem.7'))
CLASSIC = (('conv1', 'bn1'),)


def conv(name, features, channels, size=1):
  return {f'{name}.weight': (features, channels, size, size)}


def norm(name, features):
  leaves = ('weight', 'bias', 'running_mean', 'running_var')
  shapes = {f'{name}.{leaf}': (features,) for leaf in leaves}
  return {**shapes, f'{name}.num_batches_tracked': ()}


def conv_norm(name, features, channels, size=1):
  """As mmsegmentation names them."""
  shapes = conv(f'{name}.conv', features, channels, size)
  return shapes | norm(f'{name}.bn', features)


def imagenet_shapes(
  stage_sizes=(3, 4, 6, 3),
  width=64,
  stem=(64, 64, 128),
  stem_names=DEEP,
  groups=1,
  width_per_group=64,
  basic=False,
):
  """Names and shapes of a ResNet of 1000 classes."""
  shapes, channels = {}, 3
  for names, features in zip(stem_names, stem, strict=True):
    size = 7 if len(stem) == 1 else 3
    shapes |= conv(names[0], features, channels, size) | norm(
      names[1], features
    )
    channels = features
  for stage, blocks in enumerate(stage_sizes):
    planes = width * 2**stage
    for i in range(blocks):
      block = f'layer{stage + 1}.{i}'
      inner = planes * width_per_group // 64 * groups
      out = planes if basic else 4 * planes
      shapes |= conv(f'{block}.conv1', inner, channels, 3 if basic else 1)
      shapes |= conv(f'{block}.conv2', inner, inner // groups, 3)
      widths = [inner, inner]
      if not basic:
        shapes |= conv(f'{block}.conv3', out, inner)
        widths.append(out)
      for j, features in enumerate(widths):
        shapes |= norm(f'{block}.bn{j + 1}', features)
      if i == 0 and channels != out:
        shapes |= conv(f'{block}.downsample.0', out, channels)
        shapes |= norm(f'{block}.downsample.1', out)
      channels = out
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


def mmseg_shapes(
  classes=19,
  channels=512,
  bases=64,
  out_channels=256,
  auxiliary=256,
  stem=(32, 32, 64),
  stem_names=V1C,
  **backbone,
):
  """Names and shapes of mmsegmentation's EMANet; auxiliary 0: without."""
  resnet = imagenet_shapes(stem=stem, stem_names=stem_names, **backbone)
  features = resnet['fc.weight'][1]
  shapes = {
    f'backbone.{k}': v for k, v in resnet.items() if not k.startswith('fc.')
  }
  head = conv_norm('ema_in_conv', channels, features, 3)
  head |= conv('ema_mid_conv.conv', channels, channels)
  head |= conv_norm('ema_out_conv', channels, channels)
  head |= conv_norm('bottleneck', out_channels, channels, 3)
  head |= conv_norm('conv_cat', out_channels, features + out_channels, 3)
  head |= conv('conv_seg', classes, out_channels)
  head |= {
    'ema_module.bases': (1, channels, bases),
    'ema_mid_conv.conv.bias': (channels,),
    'conv_seg.bias': (classes,),
  }
  shapes |= {f'decode_head.{k}': v for k, v in head.items()}
  if auxiliary:
    second = conv_norm('convs.0', auxiliary, features // 2, 3)
    second |= conv('conv_seg', classes, auxiliary)
    second['conv_seg.bias'] = (classes,)
    shapes |= {f'auxiliary_head.{k}': v for k, v in second.items()}
  return shapes


def mit_shapes(widths, stage_sizes):
  """Names and shapes of mmsegmentation's MiT."""

  def linear(name, features, channels=None, *size, sep='.'):
    kernel = () if channels is None else (channels, *size)
    weight, bias = f'{name}{sep}weight', f'{name}{sep}bias'
    return {weight: (features, *kernel), bias: (features,)}

  shapes, channels = {}, 3
  for stage, (c, layers) in enumerate(zip(widths, stage_sizes, strict=True)):
    size, ratio, name = 3 if stage else 7, 8 >> stage, f'layers.{stage}'
    shapes |= linear(f'{name}.0.projection', c, channels, size, size)
    shapes |= linear(f'{name}.0.norm', c)
    for i in range(layers):
      layer = f'{name}.1.{i}'
      shapes |= linear(f'{layer}.norm1', c)
      shapes |= linear(f'{layer}.attn.attn.in_proj', 3 * c, c, sep='_')
      shapes |= linear(f'{layer}.attn.attn.out_proj', c, c)
      if ratio > 1:
        shapes |= linear(f'{layer}.attn.sr', c, c, ratio, ratio)
        shapes |= linear(f'{layer}.attn.norm', c)
      shapes |= linear(f'{layer}.norm2', c)
      shapes |= linear(f'{layer}.ffn.layers.0', 4 * c, c, 1, 1)
      shapes |= linear(f'{layer}.ffn.layers.1', 4 * c, 1, 3, 3)
      shapes |= linear(f'{layer}.ffn.layers.4', c, 4 * c, 1, 1)
    shapes |= linear(f'{name}.2', c)
    channels = c
  return shapes


def torchvision_shapes(head, classes=21, channels=256, auxiliary=256, **resnet):
  """Names and shapes of torchvision's networks; auxiliary 0: without.

  Args:
    head: 'fcn' or 'deeplabv3'.
    classes: Classes predicted.
    channels: Width of the head.
    auxiliary: Width of the auxiliary head.
    **resnet: Of `imagenet_shapes`.
  """
  backbone = imagenet_shapes(stem_names=CLASSIC, **resnet)
  features = backbone['fc.weight'][1]

  def fcn(name, width, channels):
    shapes = conv(f'{name}.0', width, channels, 3) | norm(f'{name}.1', width)
    shapes |= conv(f'{name}.4', classes, width)
    return {**shapes, f'{name}.4.bias': (classes,)}

  if head == 'fcn':
    shapes = fcn('classifier', channels, features)
  else:
    shapes, aspp = {}, 'classifier.0'
    for i, first in enumerate(('0', '0', '0', '0', '1')):
      size = 3 if 0 < i < 4 else 1
      branch = f'{aspp}.convs.{i}'
      shapes |= conv(f'{branch}.{first}', channels, features, size)
      shapes |= norm(f'{branch}.{int(first) + 1}', channels)
    shapes |= conv(f'{aspp}.project.0', channels, 5 * channels)
    shapes |= norm(f'{aspp}.project.1', channels)
    shapes |= conv('classifier.1', channels, channels, 3)
    shapes |= norm('classifier.2', channels)
    shapes |= conv('classifier.4', classes, channels)
    shapes['classifier.4.bias'] = (classes,)
  if auxiliary:
    shapes |= fcn('aux_classifier', auxiliary, features // 2)
  backbone = {k: v for k, v in backbone.items() if not k.startswith('fc.')}
  return {f'backbone.{k}': v for k, v in backbone.items()} | shapes


def weights(shapes):
  rng = np.random.default_rng(0)
  return {
    name: np.array(7)
    if name.endswith('num_batches_tracked')
    else rng.random(shape, np.float32)
    for name, shape in shapes.items()
  }
