"""The names that PyTorch networks give to our network's tensors.

A `Layout` is a kind of file: the authors' EMANet, mmsegmentation's, or one of
three ResNets that differ in their stems.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from emanet_jax.models.pytorch import mmseg_attention_heads, mmseg_heads
from emanet_jax.models.pytorch.mmseg_heads import MmsegHead

Path = tuple[str, ...]

# PyTorch module → our module, see `mmseg_heads`.
_DEEP_STEM = {  # 3×3 convolutions, as in the authors' ImageNet files
  'conv1.0': 'stem1/conv',
  'conv1.1': 'stem1/norm',
  'conv1.3': 'stem2/conv',
  'conv1.4': 'stem2/norm',
  'conv1.6': 'stem3/conv',
  'bn1': 'stem3/norm',
}
_V1C_STEM = {  # likewise, as in mmsegmentation's ResNetV1c
  'stem.0': 'stem1/conv',
  'stem.1': 'stem1/norm',
  'stem.3': 'stem2/conv',
  'stem.4': 'stem2/norm',
  'stem.6': 'stem3/conv',
  'stem.7': 'stem3/norm',
}
_CLASSIC_STEM = {  # one 7×7 convolution, as in torchvision
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
_AUTHORS_HEAD = {
  'fc0.conv': 'head/conv_in/conv',
  'fc0.bn': 'head/conv_in/norm',
  'emau.conv1': 'head/ema_unit/conv_in',
  'emau.conv2.0': 'head/ema_unit/conv_out/conv',
  'emau.conv2.1': 'head/ema_unit/conv_out/norm',
  'fc1.0.conv': 'head/conv_out/conv',
  'fc1.0.bn': 'head/conv_out/norm',
  'fc2': 'head/classifier',
}
_MMSEG_AUXILIARY = {
  'auxiliary_head.convs.0.conv': 'auxiliary_head/conv/conv',
  'auxiliary_head.convs.0.bn': 'auxiliary_head/conv/norm',
  'auxiliary_head.conv_seg': 'auxiliary_head/classifier',
}
# Convolutions without a bias: a normalisation follows, or they score offsets.
_WITHOUT_BIAS = ('conv', 'offsets')

# PyTorch leaf → (our collection, our leaf) of a normalisation.
_NORM_LEAVES = {
  'weight': ('params', 'scale'),
  'bias': ('params', 'bias'),
  'running_mean': ('batch_stats', 'mean'),
  'running_var': ('batch_stats', 'var'),
}


def _in_extractor(name: str) -> str:
  """The authors keep a ResNet's modules in a list."""
  name = re.sub(r'^conv1\b', 'extractor.0', name)
  name = re.sub(r'^bn1\b', 'extractor.1', name)
  return re.sub(r'^layer(\d)', lambda m: f'extractor.{int(m[1]) + 3}', name)


def _in_backbone(name: str) -> str:
  return f'backbone.{name}'


@dataclasses.dataclass(frozen=True)
class Layout:
  """A kind of PyTorch file.

  Attributes:
    title: What to call it.
    marks: Tensors that tell it from the layouts after it.
    stem: PyTorch module → our module, in the backbone.
    head: PyTorch module → our module, of the heads.
    mu: Name of μ⁰; '' without a head.
    rename: A ResNet module's own name → its name in the file.
    key: Of the state dict in a `.pth` file; '' for the state dict alone.
    options: What `config.model` must say of such a network, by dotted keys,
      where no shape tells.
    sizes: What it must say that shapes tell: one of our tensors, and the axis.
    copies: Modules whose tensors the file has once more → of which.
  """

  title: str
  marks: tuple[str, ...]
  stem: dict[str, str]
  head: dict[str, str] = dataclasses.field(default_factory=dict)
  mu: str = ''
  rename: Callable[[str], str] = str
  key: str = ''
  options: dict[str, Any] = dataclasses.field(default_factory=dict)
  sizes: dict[str, tuple[Path, int]] = dataclasses.field(default_factory=dict)
  copies: dict[str, str] = dataclasses.field(default_factory=dict)

  def original(self, name: str) -> str:
    """The tensor that this one is a copy of; itself if of none."""
    for copy, module in self.copies.items():
      if name.startswith(f'{copy}.'):
        return module + name.removeprefix(copy)
    return name

  def names(self, stage_sizes: Sequence[int]) -> dict[str, Path]:
    """PyTorch tensor name → our path, collection first."""
    modules = dict(self.stem)
    for stage, blocks in enumerate(stage_sizes, start=1):
      for i in range(blocks):
        block = _BLOCK | (_DOWNSAMPLE if i == 0 else {})
        for name, ours in block.items():
          modules[f'layer{stage}.{i}.{name}'] = f'layer{stage}_{i}/{ours}'
    modules = {self.rename(k): f'backbone/{v}' for k, v in modules.items()}
    names = {self.mu: MU} if self.mu else {}
    for module, ours in (modules | self.head).items():
      names |= _tensor_names(module, tuple(ours.split('/')))
    return names


def _kernel(module: str) -> Path:
  """Or code words: what tells a module's sizes."""
  leaf = 'codewords' if module.endswith('codes') else 'kernel'
  return ('params', *module.split('/'), leaf)


def _mmseg(head: MmsegHead) -> tuple[Layout, Layout]:
  """A head's network in mmsegmentation, with an auxiliary head and without."""
  marks = tuple(f'{module}.weight' for module in head.marks)
  mu = f'decode_head.{head.mu}' if head.mu else ''
  sizes = {
    f'head.{key}': (_kernel(f'head/{ours}'), axis)
    for key, (ours, axis) in head.sizes.items()
  }
  without = Layout(
    f"mmsegmentation's {head.title} without auxiliary head",
    tuple(f'decode_head.{mark}' for mark in marks),
    _V1C_STEM,
    {f'decode_head.{k}': f'head/{v}' for k, v in head.modules.items()},
    mu,
    _in_backbone,
    'state_dict',
    {
      'align_corners': False,
      'norm_momentum': 0.9,
      'backbone.multi_grid': (1, 1, 1),
      'head.name': head.name,  # brings the options that follow
      **{f'head.{key}': value for key, value in head.options.items()},
    },
    sizes | (_NUM_BASES if mu else {}),
    {f'decode_head.{k}': f'decode_head.{v}' for k, v in head.copies.items()},
  )
  auxiliary = _kernel('auxiliary_head/conv/conv'), -1
  both = dataclasses.replace(
    without,
    title=f"mmsegmentation's {head.title}",
    marks=(*without.marks, 'auxiliary_head.conv_seg.weight'),
    head=without.head | _MMSEG_AUXILIARY,
    options={**without.options, 'auxiliary_head.weight': 0.4},
    sizes={**without.sizes, 'auxiliary_head.channels': auxiliary},
  )
  return both, without


# Those with more tensors before those that have a part of these.
HEADS = (*mmseg_attention_heads.HEADS, *mmseg_heads.HEADS)
MU = ('bases', 'head', 'ema_unit', 'mu')
_NUM_BASES = {'head.num_bases': (MU, 0)}
AUTHORS = Layout(
  "the authors' EMANet",
  ('emau.mu',),
  _DEEP_STEM,
  _AUTHORS_HEAD,
  'emau.mu',
  _in_extractor,
  'net',
  sizes={
    'head.channels': (_kernel('head/conv_in/conv'), -1),
    'head.out_channels': (_kernel('head/conv_out/conv'), -1),
    **_NUM_BASES,
  },
)
LAYOUTS = (
  AUTHORS,
  *(layout for head in HEADS for layout in _mmseg(head)),
  Layout('a deep-stem ResNet', ('conv1.0.weight',), _DEEP_STEM),
  Layout("mmsegmentation's ResNetV1c", ('stem.0.weight',), _V1C_STEM),
  Layout("torchvision's ResNet", ('conv1.weight',), _CLASSIC_STEM),
)


def stage_sizes(names: Iterable[str]) -> list[int]:
  """Blocks of each stage, from the tensors' names in any layout."""
  sizes = [1] * 4
  for name in names:
    match = re.match(
      r'(?:backbone\.layer|layer|(extractor\.))(\d)\.(\d+)', name
    )
    if match:
      stage = int(match[2]) - (4 if match[1] else 1)
      if 0 <= stage < 4:
        sizes[stage] = max(sizes[stage], int(match[3]) + 1)
  return sizes


def _tensor_names(module: str, path: Path) -> dict[str, Path]:
  if path[-1] == 'norm':
    return {
      f'{module}.{leaf}': (collection, *path, our_leaf)
      for leaf, (collection, our_leaf) in _NORM_LEAVES.items()
    }
  if path[-1] == 'layer_norm':
    return {
      f'{module}.weight': ('params', *path, 'scale'),
      f'{module}.bias': ('params', *path, 'bias'),
    }
  if path[-1] == 'codes':
    leaves = 'codewords', 'scale'
    return {f'{module}.{leaf}': ('params', *path, leaf) for leaf in leaves}
  if path[-1] == 'gamma':
    return {f'{module}.scale': ('params', *path)}
  names = {f'{module}.weight': ('params', *path, 'kernel')}
  if path[-1] not in _WITHOUT_BIAS:
    names[f'{module}.bias'] = ('params', *path, 'bias')
  return names
