"""ResNet with a deep stem, atrous late stages and a multi-grid.

He et al., "Deep Residual Learning" (CVPR 2016), as segmentation networks use
it: late stages keep their resolution and dilate their 3×3 convolutions instead
(Chen et al., DeepLabV3). Also with 3×3s in groups (Xie et al., ResNeXt, CVPR
2017) and with wider ones (Zagoruyko and Komodakis, Wide ResNet, BMVC 2016, as
torchvision has them).
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.layers import ConvNorm, halve, max_pool, relu

# `remat` changes no number; the others leave all weights as they are.
FREE_ON_RESUME = ('remat',)
FREE_IN_EVALUATION = ('multi_grid', 'output_stride')
# By depth. Those of BASIC have blocks of two 3×3 convolutions, all others
# bottlenecks.
STAGE_SIZES = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}
BASIC = (18, 34)
EXPANSION = 4  # of a bottleneck's planes


def stage_strides(output_stride: int) -> tuple[tuple[int, int], ...]:
  """(stride, dilation) of each of the four stages at an output stride."""
  try:
    return {
      8: ((1, 1), (2, 1), (1, 2), (1, 4)),
      16: ((1, 1), (2, 1), (2, 1), (1, 2)),
      32: ((1, 1), (2, 1), (2, 1), (2, 1)),
    }[output_stride]
  except KeyError:
    raise UserError(
      f'model.backbone.output_stride is {output_stride}; it must be 8, 16 or 32'
    ) from None


def block_dilations(
  blocks: int, dilation: int, grid: Sequence[int]
) -> list[int]:
  """Dilation of each block's 3×3 convolution, as the authors set it.

  The first block of a stage, where the resolution would have halved, takes
  half the stage's dilation; every other block takes the stage's dilation times
  its entry in the grid (the grid's first entry is thus never used).
  """
  return [max(dilation // 2, 1)] + [dilation * g for g in grid[1:blocks]]


def inner_width(planes: int, groups: int, width_per_group: int) -> int:
  """Channels of a block's 3×3 convolution, as torchvision counts them."""
  return planes * width_per_group // 64 * groups


class Bottleneck(nn.Module):
  """1×1 reduce, 3×3 maybe in groups, 1×1 expand, plus the shortcut."""

  planes: int
  inner: int
  groups: int
  stride: int
  dilation: int
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b ho wo f']:
    features, momentum = self.planes * EXPANSION, self.norm_momentum
    conv = ConvNorm(self.inner, norm_momentum=momentum, name='conv1')
    y = conv(x, train=train)
    y = ConvNorm(
      self.inner,
      3,
      self.stride,
      self.dilation,
      norm_momentum=momentum,
      groups=self.groups,
      name='conv2',
    )(y, train=train, extent=extent)
    y = ConvNorm(
      features, norm_momentum=momentum, use_relu=False, name='conv3'
    )(y, train=train)
    return relu(_shortcut(x, features, self.stride, momentum, train) + y)


class BasicBlock(nn.Module):
  """Two 3×3s, the first of which may dilate, plus the shortcut.

  The second never dilates, as in mmsegmentation; torchvision's dilate not at
  all.
  """

  planes: int
  stride: int
  dilation: int
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b ho wo f']:
    features, momentum = self.planes, self.norm_momentum
    y = ConvNorm(
      features,
      3,
      self.stride,
      self.dilation,
      norm_momentum=momentum,
      name='conv1',
    )(x, train=train, extent=extent)
    extent = halve(extent) if self.stride == 2 else extent
    y = ConvNorm(
      features, 3, norm_momentum=momentum, use_relu=False, name='conv2'
    )(y, train=train, extent=extent)
    return relu(_shortcut(x, features, self.stride, momentum, train) + y)


def _shortcut(x, features, stride, norm_momentum, train):
  """What a block adds to; to be called in a compact method."""
  if stride == 1 and x.shape[-1] == features:
    return x
  return ConvNorm(
    features,
    1,
    stride,
    norm_momentum=norm_momentum,
    use_relu=False,
    name='downsample',
  )(x, train=train)


class ResNet(nn.Module):
  """The backbone: an image to the features of its four stages.

  Attributes:
    stage_sizes: Blocks in each of the four stages.
    basic: Whether they are basic blocks; else bottlenecks.
    width: Planes of the first stage; each later stage doubles them. A stage's
      output has its planes, of bottlenecks four times as many (512 and 2048
      channels at width 64).
    stem_widths: Three widths: a deep stem of 3×3 convolutions, the first with
      stride 2 (64, 64, 128 in the authors' code; 32, 32, 64 elsewhere). One
      width: the classic 7×7 convolution with stride 2.
    output_stride: Input pixels per output pixel: 8, 16 or 32.
    multi_grid: Factors on the last stage's dilation, block by block.
    groups: Of the channels of each 3×3 convolution; 32 in ResNeXts.
    width_per_group: Of a 3×3's planes · groups · width_per_group / 64 channels:
      4 and 8 in torchvision's ResNeXt-50 and -101, 128 in its Wide ResNets.
    norm_momentum: Share of the running statistics kept per step.
    remat: Whether training keeps only the blocks' inputs for the gradients, and
      computes each block anew.
  """

  stage_sizes: tuple[int, ...]
  basic: bool = False
  width: int = 64
  stem_widths: tuple[int, ...] = (64, 64, 128)
  output_stride: int = 8
  multi_grid: tuple[int, ...] = (1, 2, 4)
  groups: int = 1
  width_per_group: int = 64
  norm_momentum: float = 0.9997
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w 3'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> tuple[Float[Array, 'b _ _ _'], ...]:
    """Returns the four stages' features, finest first."""
    x = max_pool(self._stem(x, train, extent), halve(extent))
    extents = (halve(halve(extent)), *self.out_extents(extent))
    outputs = []
    # Its `train`, a Python bool, is an argument by position: number 2.
    block = BasicBlock if self.basic else Bottleneck
    block = nn.remat(block, static_argnums=(2,)) if self.remat else block
    strides = stage_strides(self.output_stride)
    for stage, (stride, dilation) in enumerate(strides):
      blocks = self.stage_sizes[stage]
      # Only the last stage has a grid; see block_dilations for its first block.
      grid = self.multi_grid if stage == 3 else (1,) * blocks
      dilations = block_dilations(blocks, dilation, grid)
      planes = self.width * 2**stage
      inner = inner_width(planes, self.groups, self.width_per_group)
      own = {} if self.basic else {'inner': inner, 'groups': self.groups}
      for i, block_dilation in enumerate(dilations):
        x = block(
          planes=planes,
          stride=stride if i == 0 else 1,
          dilation=block_dilation,
          norm_momentum=self.norm_momentum,
          name=f'layer{stage + 1}_{i}',
          **own,
        )(x, train, extents[stage + (i > 0)])
      outputs.append(x)
    return tuple(outputs)

  def out_extents(
    self, extent: Int[Array, 'b 2'] | None
  ) -> tuple[Int[Array, 'b 2'] | None, ...]:
    """The images' extents in the four stages' features."""
    extent, extents = halve(halve(extent)), []  # of stem and pooling
    for stride, _ in stage_strides(self.output_stride):
      extent = halve(extent) if stride == 2 else extent
      extents.append(extent)
    return tuple(extents)

  def _stem(self, x, train, extent):
    size = 3 if len(self.stem_widths) == 3 else 7
    for i, features in enumerate(self.stem_widths):
      x = ConvNorm(
        features,
        size,
        2 if i == 0 else 1,
        norm_momentum=self.norm_momentum,
        name=f'stem{i + 1}',
      )(x, train=train, extent=halve(extent) if i else extent)
    return x


def create(
  norm_momentum: float,
  *,
  depth: int = 101,
  stage_sizes: Sequence[int] = (),
  basic_blocks: bool = False,
  width: int = 64,
  stem_widths: Sequence[int] = (64, 64, 128),
  output_stride: int = 8,
  multi_grid: Sequence[int] = (1, 2, 4),
  groups: int = 1,
  width_per_group: int = 64,
  remat: bool = False,
) -> ResNet:
  """The backbone of a configuration, checked; arguments as of `ResNet`.

  Beside those, depth: 18 or 34, of basic blocks, 50, 101 or 152; not read where
  there are stage_sizes, the four block counts of a variant of your own. And
  basic_blocks: whether that variant has these; else it has bottlenecks.

  Raises:
    UserError: A value that no such network has.
  """
  if not stage_sizes and depth not in STAGE_SIZES:
    raise UserError(
      f'model.backbone.depth is {depth}; known depths are '
      f'{sorted(STAGE_SIZES)}, or set model.backbone.stage_sizes'
    )
  sizes = tuple(stage_sizes) or STAGE_SIZES[depth]
  if len(sizes) != 4 or min(sizes) < 1:
    raise UserError(
      f'model.backbone.stage_sizes is {sizes}; a ResNet has four stages of at '
      'least one block'
    )
  if len(stem_widths) not in (1, 3) or min(width, *stem_widths) < 1:
    raise UserError(
      f'model.backbone.stem_widths is {tuple(stem_widths)} and width {width}; '
      'give three stem widths (deep 3×3 stem) or one (7×7 stem), all ≥ 1'
    )
  if len(multi_grid) < sizes[3] or min(multi_grid) < 1:
    raise UserError(
      f'model.backbone.multi_grid {tuple(multi_grid)} has fewer entries than '
      f'the last stage has blocks ({sizes[3]}), or one below 1'
    )
  if groups < 1 or inner_width(width, groups, width_per_group) < 1:
    raise UserError(
      f'model.backbone.groups is {groups} and width_per_group '
      f'{width_per_group}; groups must be ≥ 1, and width ({width}) times '
      'width_per_group at least 64'
    )
  basic = basic_blocks if stage_sizes else depth in BASIC
  if basic_blocks and not basic:
    raise UserError(
      f'model.backbone.basic_blocks is set, but depth {depth} has bottlenecks; '
      f'give a depth of {BASIC}, or model.backbone.stage_sizes'
    )
  if basic and (groups, width_per_group) != (1, 64):
    raise UserError(
      f'model.backbone.groups is {groups} and width_per_group '
      f'{width_per_group}; basic blocks have 1 and 64'
    )
  stage_strides(output_stride)
  return ResNet(
    sizes,
    basic,
    width,
    tuple(stem_widths),
    output_stride,
    tuple(multi_grid),
    groups,
    width_per_group,
    norm_momentum,
    remat,
  )
