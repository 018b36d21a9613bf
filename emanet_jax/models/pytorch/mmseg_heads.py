"""The heads of mmsegmentation: their tensors' names and ours, and our options.

Modules are written without `decode_head.` and `head/`. Of ours, those called
`norm` and `layer_norm` normalise, `gamma` is a scalar, `codes` has code words,
`offsets` a square mask's; all others convolve, and where PyTorch has a linear
layer, their name ends in `fc`.
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
  copies: dict[str, str] = dataclasses.field(default_factory=dict)


def pair(theirs: str, ours: str) -> dict[str, str]:
  """A convolution with its normalisation."""
  return {f'{theirs}.conv': f'{ours}/conv', f'{theirs}.bn': f'{ours}/norm'}


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
  **{
    k: v
    for i in range(4)
    for k, v in pair(f'psp_modules.{i}.1', f'pyramid/branch{i + 1}').items()
  },
  **pair('bottleneck', 'conv_cat'),
  **CLASSIFIER,
}
_DEEPLAB = {
  **pair('image_pool.1', 'image_pool/branch1'),
  **{
    k: v
    for i in range(4)
    for k, v in pair(f'aspp_modules.{i}', f'branch{i + 1}').items()
  },
  **pair('bottleneck', 'project'),
  **CLASSIFIER,
}
# Those with more tensors before those that have a part of these.
HEADS = (
  EMA,
  MmsegHead(
    'PSPNet',
    'psp',
    ('psp_modules.0.1.conv',),
    _PSP,
    {'channels': ('conv_cat/conv', -1)},
    {'align_corners': False},
  ),
  MmsegHead(
    'DeepLabV3',
    'deeplabv3',
    ('image_pool.1.conv',),
    _DEEPLAB,
    {
      'channels': ('project/conv', -1),
      'projection_size': ('project/conv', 0),
    },
  ),
  _fcn(2, True),
  _fcn(2, False),
  _fcn(1, True),
  _fcn(1, False),
  _fcn(0, False),
)
