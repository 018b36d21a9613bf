"""The names that PyTorch networks give to our network's tensors.

A `Layout` is a kind of file: the authors' EMANet, mmsegmentation's, or one of
three ResNets that differ in their stems.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Path = tuple[str, ...]

# PyTorch module → our module. Our modules called `norm` normalise, all others
# convolve.
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
_MMSEG_HEAD = {
  'decode_head.ema_in_conv.conv': 'head/conv_in/conv',
  'decode_head.ema_in_conv.bn': 'head/conv_in/norm',
  'decode_head.ema_mid_conv.conv': 'head/ema_unit/conv_in',
  'decode_head.ema_out_conv.conv': 'head/ema_unit/conv_out/conv',
  'decode_head.ema_out_conv.bn': 'head/ema_unit/conv_out/norm',
  'decode_head.bottleneck.conv': 'head/conv_out/conv',
  'decode_head.bottleneck.bn': 'head/conv_out/norm',
  'decode_head.conv_cat.conv': 'head/conv_cat/conv',
  'decode_head.conv_cat.bn': 'head/conv_cat/norm',
  'decode_head.conv_seg': 'head/classifier',
}
_MMSEG_AUXILIARY = {
  'auxiliary_head.convs.0.conv': 'auxiliary_head/conv/conv',
  'auxiliary_head.convs.0.bn': 'auxiliary_head/conv/norm',
  'auxiliary_head.conv_seg': 'auxiliary_head/classifier',
}
_WITH_BIAS = ('classifier', 'conv_in')  # our convolutions' own names

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
  """

  title: str
  marks: tuple[str, ...]
  stem: dict[str, str]
  head: dict[str, str] = dataclasses.field(default_factory=dict)
  mu: str = ''
  rename: Callable[[str], str] = str
  key: str = ''
  options: dict[str, Any] = dataclasses.field(default_factory=dict)

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


MU = ('bases', 'head', 'ema_unit', 'mu')
AUTHORS = Layout(
  "the authors' EMANet",
  ('emau.mu',),
  _DEEP_STEM,
  _AUTHORS_HEAD,
  'emau.mu',
  _in_extractor,
  'net',
)
_MMSEG = Layout(
  "mmsegmentation's EMANet without auxiliary head",
  ('decode_head.ema_module.bases',),
  _V1C_STEM,
  _MMSEG_HEAD,
  'decode_head.ema_module.bases',
  _in_backbone,
  'state_dict',
  {
    'align_corners': False,
    'norm_momentum': 0.9,
    'backbone.multi_grid': (1, 1, 1),
    'head.concat_input': True,
    'head.renormalize': True,
  },
)
_MMSEG_WITH_AUXILIARY = dataclasses.replace(
  _MMSEG,
  title="mmsegmentation's EMANet",
  marks=(*_MMSEG.marks, 'auxiliary_head.conv_seg.weight'),
  head=_MMSEG_HEAD | _MMSEG_AUXILIARY,
  options={**_MMSEG.options, 'auxiliary_head.weight': 0.4},
)
LAYOUTS = (
  AUTHORS,
  _MMSEG_WITH_AUXILIARY,
  _MMSEG,
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
  names = {f'{module}.weight': ('params', *path, 'kernel')}
  if path[-1] in _WITH_BIAS:
    names[f'{module}.bias'] = ('params', *path, 'bias')
  return names
