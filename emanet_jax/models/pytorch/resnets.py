"""The names that PyTorch's ResNets give to our backbone's modules."""

import re
from collections.abc import Iterable
from typing import NamedTuple

# PyTorch module → our module, without `backbone/`.
DEEP_STEM = {  # 3×3 convolutions, as in the authors' ImageNet files
  'conv1.0': 'stem1/conv',
  'conv1.1': 'stem1/norm',
  'conv1.3': 'stem2/conv',
  'conv1.4': 'stem2/norm',
  'conv1.6': 'stem3/conv',
  'bn1': 'stem3/norm',
}
V1C_STEM = {  # likewise, as in mmsegmentation's ResNetV1c
  'stem.0': 'stem1/conv',
  'stem.1': 'stem1/norm',
  'stem.3': 'stem2/conv',
  'stem.4': 'stem2/norm',
  'stem.6': 'stem3/conv',
  'stem.7': 'stem3/norm',
}
CLASSIC_STEM = {  # one 7×7 convolution, as in torchvision
  'conv1': 'stem1/conv',
  'bn1': 'stem1/norm',
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


class Blocks(NamedTuple):
  """A backbone's blocks.

  Attributes:
    sizes: How many each stage has.
    basic: Of a ResNet: whether they are basic ones, else bottlenecks.
    widens: Of basic ones: whether the first has more channels than the stem, or
      fewer. Of bottlenecks it always has.
  """

  sizes: tuple[int, ...] = ()
  basic: bool = False
  widens: bool = False


def resnet_modules(stem: dict[str, str], blocks: Blocks) -> dict[str, str]:
  """PyTorch module → our module, of a ResNet by its stem and blocks."""
  modules, block = dict(stem), _BLOCK
  if blocks.basic:
    block = {k: v for k, v in block.items() if not v.startswith('conv3')}
  for stage, size in enumerate(blocks.sizes, start=1):
    for i in range(size):
      widens = stage > 1 or not blocks.basic or blocks.widens
      shortcut = _DOWNSAMPLE if i == 0 and widens else {}
      for name, ours in (block | shortcut).items():
        modules[f'layer{stage}.{i}.{name}'] = f'layer{stage}_{i}/{ours}'
  return modules


def in_extractor(name: str) -> str:
  """EMANet's authors keep a ResNet's modules in a list."""
  name = re.sub(r'^conv1\b', 'extractor.0', name)
  name = re.sub(r'^bn1\b', 'extractor.1', name)
  return re.sub(r'^layer(\d)', lambda m: f'extractor.{int(m[1]) + 3}', name)


def in_backbone(name: str) -> str:
  """Others keep a ResNet as one module of the network's."""
  return f'backbone.{name}'


def find_blocks(names: Iterable[str]) -> Blocks:
  """The backbone's, from the tensors' names in any layout."""
  sizes, basic, widens = [1] * 4, True, False
  for name in names:
    match = re.match(
      r'(?:backbone\.)?(?:layer|(extractor\.)|(layers\.))(\d)(?(2)\.1)\.(\d+)',
      name,
    )
    if match:
      stage = int(match[3]) - (4 if match[1] else 0 if match[2] else 1)
      if 0 <= stage < 4:
        sizes[stage] = max(sizes[stage], int(match[4]) + 1)
      basic = basic and '.conv3' not in name
      widens = widens or (stage == 0 and '.downsample' in name)
  return Blocks(tuple(sizes), basic, widens)
