"""The names that PyTorch networks give to our network's tensors.

A `Layout` is a kind of file: the authors' EMANet, a network of mmsegmentation's
or torchvision's, or one of three ResNets that differ in their stems.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from emanet_jax.models.pytorch import (
  mmseg_attention_heads,
  mmseg_heads,
  torchvision_heads,
)
from emanet_jax.models.pytorch.leaves import Path, tensor_names
from emanet_jax.models.pytorch.mit import mit_modules
from emanet_jax.models.pytorch.mmseg_heads import MmsegHead
from emanet_jax.models.pytorch.resnets import (
  CLASSIC_STEM,
  DEEP_STEM,
  V1C_STEM,
  Blocks,
  in_backbone,
  in_extractor,
  resnet_modules,
)

# PyTorch module → our module, see `mmseg_heads`.
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


@dataclasses.dataclass(frozen=True)
class Layout:
  """A kind of PyTorch file.

  Attributes:
    title: What to call it; after a comma, which form of it.
    marks: Tensors that tell it from the layouts after it.
    stem: PyTorch module → our module, in the backbone.
    head: PyTorch module → our module, of the heads.
    mu: Name of μ⁰; '' without a head.
    rename: A backbone module's own name → its name in the file.
    key: Of the state dict in a `.pth` file; '' for the state dict alone.
    options: What `config.model` must say of such a network, by dotted keys,
      where no shape tells.
    sizes: What it must say that shapes tell: one of our tensors, and the axis.
    copies: Modules whose tensors the file has once more → of which.
    orders: Of our kernels that read several features side by side: where in the
      file's order each of them comes.
    backbone: The stem and the blocks → the backbone's modules, as its own file
      has them → ours.
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
  orders: dict[Path, tuple[int, ...]] = dataclasses.field(default_factory=dict)
  backbone: Callable[[dict[str, str], Blocks], dict[str, str]] = resnet_modules

  def original(self, name: str) -> str:
    """The tensor that this one is a copy of; itself if of none."""
    for copy, module in self.copies.items():
      if name.startswith(f'{copy}.'):
        return module + name.removeprefix(copy)
    return name

  def names(self, blocks: Blocks) -> dict[str, Path]:
    """PyTorch tensor name → our path, collection first."""
    modules = self.backbone(self.stem, blocks)
    modules = {self.rename(k): f'backbone/{v}' for k, v in modules.items()}
    names = {self.mu: MU} if self.mu else {}
    for module, ours in (modules | self.head).items():
      names |= tensor_names(module, tuple(ours.split('/')))
    return names


def _kernel(module: str) -> Path:
  """Or code words: what tells a module's sizes."""
  leaf = 'codewords' if module.endswith('codes') else 'kernel'
  return ('params', *module.split('/'), leaf)


def _mmseg(head: MmsegHead) -> tuple[Layout, Layout]:
  """A head's network in mmsegmentation, with an auxiliary head and without."""
  is_mit = head.backbone.get('name') == 'mit'
  mu = f'decode_head.{head.mu}' if head.mu else ''
  sizes = {
    f'head.{key}': (_kernel(f'head/{ours}'), axis)
    for key, (ours, axis) in head.sizes.items()
  }
  without = Layout(
    f"mmsegmentation's {head.title}, without auxiliary head",
    tuple(f'decode_head.{module}.weight' for module in head.marks),
    {} if is_mit else V1C_STEM,
    {f'decode_head.{k}': f'head/{v}' for k, v in head.modules.items()},
    mu,
    in_backbone,
    'state_dict',
    {
      **(_TOOLBOX if is_mit else _PLAIN),
      **{f'backbone.{key}': value for key, value in head.backbone.items()},
      'head.name': head.name,  # brings the options that follow
      **{f'head.{key}': value for key, value in head.options.items()},
    },
    sizes | (_NUM_BASES if mu else {}),
    {f'decode_head.{k}': f'decode_head.{v}' for k, v in head.copies.items()},
    backbone=mit_modules if is_mit else resnet_modules,
  )
  both = _with_auxiliary(
    without,
    f"mmsegmentation's {head.title}",
    'auxiliary_head.conv_seg',
    _MMSEG_AUXILIARY,
    0.4,
  )
  return both, without


def _with_classic_stem(layout: Layout) -> Layout:
  """The layout with a 7×7 stem instead (mmsegmentation's `…b` backbones)."""
  return dataclasses.replace(
    layout,
    title=f'{layout.title}, with a 7×7 stem',
    marks=(*layout.marks, 'backbone.conv1.weight'),
    stem=CLASSIC_STEM,
  )


def _torchvision(
  title: str,
  mark: str,
  head: dict[str, str],
  options: dict[str, Any],
  **rest: Any,
) -> tuple[Layout, Layout]:
  """A head's network in torchvision, with an auxiliary head and without."""
  width = _kernel('head/conv/conv'), -1
  without = Layout(
    f"torchvision's {title}, without auxiliary head",
    (mark, 'classifier.4.weight'),
    CLASSIC_STEM,
    head,
    rename=in_backbone,
    options={**_PLAIN, **options, 'head.num_convs': 1},
    sizes={'head.channels': width},
    **rest,
  )
  both = _with_auxiliary(
    without,
    f"torchvision's {title}",
    'aux_classifier.4',
    {f'aux_{k}': f'auxiliary_{v}' for k, v in torchvision_heads.FCN.items()},
    0.5,
  )
  return both, without


def _with_auxiliary(
  layout: Layout,
  title: str,
  classifier: str,
  head: dict[str, str],
  weight: float,
) -> Layout:
  """The layout with an FCN of one convolution more, of this classifier."""
  channels = _kernel('auxiliary_head/conv/conv'), -1
  return dataclasses.replace(
    layout,
    title=title,
    marks=(*layout.marks, f'{classifier}.weight'),
    head=layout.head | head,
    options={**layout.options, 'auxiliary_head.weight': weight},
    sizes={**layout.sizes, 'auxiliary_head.channels': channels},
  )


# Those with more tensors before those that have a part of these.
HEADS = (*mmseg_attention_heads.HEADS, *mmseg_heads.HEADS)
# Not as the authors: centres not aligned, PyTorch's momentum, flat grids.
_TOOLBOX = {'align_corners': False, 'norm_momentum': 0.9}
_PLAIN = {**_TOOLBOX, 'backbone.multi_grid': (1, 1, 1)}
MU = ('bases', 'head', 'ema_unit', 'mu')
_NUM_BASES = {'head.num_bases': (MU, 0)}
AUTHORS = Layout(
  "the authors' EMANet",
  ('emau.mu',),
  DEEP_STEM,
  _AUTHORS_HEAD,
  'emau.mu',
  in_extractor,
  'net',
  sizes={
    'head.channels': (_kernel('head/conv_in/conv'), -1),
    'head.out_channels': (_kernel('head/conv_out/conv'), -1),
    **_NUM_BASES,
  },
)
_MMSEG = [layout for head in HEADS for layout in _mmseg(head)]
# Files are like the first whose marks they have, variables like the first that
# has just these tensors.
LAYOUTS = (
  AUTHORS,
  *_torchvision(
    'DeepLabV3',
    'classifier.0.project.0.weight',
    torchvision_heads.DEEPLAB,
    {'head.name': 'deeplabv3'},
    # There the image's mean comes last, here first.
    orders={_kernel('head/project/conv'): (4, 0, 1, 2, 3)},
  ),
  *_torchvision(
    'FCN', 'classifier.0.weight', torchvision_heads.FCN, {'head.name': 'fcn'}
  ),
  *(_with_classic_stem(layout) for layout in _MMSEG if layout.stem),
  *_MMSEG,
  Layout(
    "mmsegmentation's MiT",
    ('layers.0.0.projection.weight',),
    {},
    options={'backbone.name': 'mit'},
    backbone=mit_modules,
  ),
  Layout('a deep-stem ResNet', ('conv1.0.weight',), DEEP_STEM),
  Layout("mmsegmentation's ResNetV1c", ('stem.0.weight',), V1C_STEM),
  Layout("torchvision's ResNet", ('conv1.weight',), CLASSIC_STEM),
)
