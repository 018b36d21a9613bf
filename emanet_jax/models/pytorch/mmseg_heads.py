"""The heads of mmsegmentation: their tensors' names and ours, and our options.

Modules are written without `decode_head.` and `head/`. Of ours, those called
`norm` and `layer_norm` normalise, `gamma` is a scalar, `codes` has code words,
`offsets` a square mask's; all others convolve, and where PyTorch has a linear
layer, their name ends in `fc` (`leaves.py`, `tensors.py`).
"""

import dataclasses
from typing import Any

# Where an option's value is read: one of our convolutions, and the axis of its
# kernel [k, k, in, out]; or code words [k, c].
Size = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class MmsegHead:
  """One head as mmsegmentation names its tensors.

  Attributes:
    title: Of the network.
    name: Of our head.
    marks: Of its modules, convolutions that tell it from the heads after it.
    modules: Its module → ours.
    sizes: Options that shapes tell.
    options: Options that no shape tells.
    backbone: Options of the backbone likewise.
    mu: Name of μ⁰; '' without.
    copies: Its modules whose tensors are stored once more → of which.
  """

  title: str
  name: str
  marks: tuple[str, ...]
  modules: dict[str, str]
  sizes: dict[str, Size]
  options: dict[str, Any] = dataclasses.field(default_factory=dict)
  mu: str = ''
  backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
  copies: dict[str, str] = dataclasses.field(default_factory=dict)


def pair(theirs: str, ours: str) -> dict[str, str]:
  """A convolution with its normalisation."""
  return {f'{theirs}.conv': f'{ours}/conv', f'{theirs}.bn': f'{ours}/norm'}


def pairs(theirs: str, ours: str, first: int, stop: int) -> dict[str, str]:
  """Such pairs whose names hold numbers, from 0 theirs and from 1 ours."""
  names = {}
  for i in range(first, stop):
    names |= pair(theirs.format(i), ours.format(i + 1))
  return names


def _separable_pairs(
  theirs: str, ours: str, first: int, stop: int
) -> dict[str, str]:
  return {
    k: v
    for kind in ('depthwise', 'pointwise')
    for k, v in pairs(
      f'{theirs}.{kind}_conv', f'{ours}/{kind}', first, stop
    ).items()
  }


CLASSIFIER = {'conv_seg': 'classifier'}


def _fcn(num_convs: int, concat_input: bool) -> MmsegHead:
  modules = dict(CLASSIFIER)
  for i in range(num_convs):
    modules |= pair(f'convs.{i}', f'conv{i + 1}' if i else 'conv')
  if concat_input:
    modules |= pair('conv_cat', 'conv_cat')
  title = f'FCN of {num_convs} convolutions{" and one" * concat_input}'
  return MmsegHead(
    title,
    'fcn',
    tuple(name for name in modules if not name.endswith('.bn')),
    modules,
    {'channels': ('conv/conv', -1)} if num_convs else {},
    {'num_convs': num_convs, 'concat_input': concat_input},
  )


EMA = MmsegHead(
  'EMANet',
  'ema',
  ('ema_mid_conv.conv',),
  {
    **pair('ema_in_conv', 'conv_in'),
    'ema_mid_conv.conv': 'ema_unit/conv_in',
    **pair('ema_out_conv', 'ema_unit/conv_out'),
    **pair('bottleneck', 'conv_out'),
    **pair('conv_cat', 'conv_cat'),
    **CLASSIFIER,
  },
  {'channels': ('conv_in/conv', -1), 'out_channels': ('conv_out/conv', -1)},
  {'concat_input': True, 'renormalize': True},
  'ema_module.bases',
)
_PSP = {
  **pairs('psp_modules.{}.1', 'pyramid/branch{}', 0, 4),
  **pair('bottleneck', 'conv_cat'),
  **CLASSIFIER,
}
_DEEPLAB = {
  **pair('image_pool.1', 'image_pool/branch1'),
  **pairs('aspp_modules.{}', 'branch{}', 0, 4),
  **pair('bottleneck', 'project'),
  **CLASSIFIER,
}
_DEEPLAB_SIZES = {
  'channels': ('project/conv', -1),
  'projection_size': ('project/conv', 0),
}


def _deeplabv3plus(separable: bool) -> MmsegHead:
  convs = _separable_pairs if separable else pairs
  return MmsegHead(
    f'DeepLabV3+{"" if separable else " of ordinary convolutions"}',
    'deeplabv3plus',
    (
      'c1_bottleneck.conv',
      *('aspp_modules.1.depthwise_conv.conv',) * separable,
    ),
    {
      **pair('image_pool.1', 'image_pool/branch1'),
      **pair('aspp_modules.0', 'branch1'),
      **convs('aspp_modules.{}', 'branch{}', 1, 4),
      **pair('bottleneck', 'project'),
      **pair('c1_bottleneck', 'low'),
      **convs('sep_bottleneck.{}', 'decode{}', 0, 2),
      **CLASSIFIER,
    },
    {**_DEEPLAB_SIZES, 'low_channels': ('low/conv', -1)},
    {'separable': separable, 'align_corners': False},
  )


# Those with more tensors before those that have a part of these.
HEADS = (
  EMA,
  MmsegHead(
    'SegFormer',
    'segformer',
    ('fusion_conv.conv',),
    {
      **pairs('convs.{}', 'stage{}', 0, 4),
      **pair('fusion_conv', 'fuse'),
      **CLASSIFIER,
    },
    {'channels': ('fuse/conv', -1)},
    backbone={'name': 'mit'},
  ),
  MmsegHead(
    'UPerNet',
    'uper',
    ('fpn_bottleneck.conv',),
    {
      **pairs('psp_modules.{}.1', 'pyramid/branch{}', 0, 4),
      **pair('bottleneck', 'top'),
      **pairs('lateral_convs.{}', 'lateral{}', 0, 3),
      **pairs('fpn_convs.{}', 'fpn{}', 0, 3),
      **pair('fpn_bottleneck', 'conv_cat'),
      **CLASSIFIER,
    },
    {'channels': ('conv_cat/conv', -1)},
    backbone={'output_stride': 32},
  ),
  MmsegHead(
    'PSPNet',
    'psp',
    ('psp_modules.0.1.conv',),
    _PSP,
    {'channels': ('conv_cat/conv', -1)},
    {'align_corners': False},
  ),
  _deeplabv3plus(True),
  _deeplabv3plus(False),
  MmsegHead(
    'DeepLabV3',
    'deeplabv3',
    ('image_pool.1.conv',),
    _DEEPLAB,
    _DEEPLAB_SIZES,
  ),
  _fcn(2, True),
  _fcn(2, False),
  _fcn(1, True),
  _fcn(1, False),
  _fcn(0, False),
)
