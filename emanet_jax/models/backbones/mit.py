"""Mix Transformer, SegFormer's backbone.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation
with Transformers" (NeurIPS 2021), 3.1. Four stages at strides 4, 8, 16 and 32,
each of overlapping patches and layers

  x += attention(LN x);  x += FFN(LN x).

Keys and values come from patches of r×r pixels, r = 8, 4, 2, 1 by stage, so
that attention between n pixels costs 2·n²·c/r² multiply-adds. A depthwise
convolution in the FFN tells positions; there is no other encoding of them.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.attention.multi_head import ReducedAttention
from emanet_jax.models.layers import Conv, halve, kaiming_fan_out, layer_norm

# `remat` changes no number; dropping paths is for training.
FREE_ON_RESUME = ('remat',)
FREE_IN_EVALUATION = ('drop_path_rate',)
# Widths and layers of the stages.
VARIANTS = {
  'b0': ((32, 64, 160, 256), (2, 2, 2, 2)),
  'b1': ((64, 128, 320, 512), (2, 2, 2, 2)),
  'b2': ((64, 128, 320, 512), (3, 4, 6, 3)),
  'b3': ((64, 128, 320, 512), (3, 4, 18, 3)),
  'b4': ((64, 128, 320, 512), (3, 8, 27, 3)),
  'b5': ((64, 128, 320, 512), (3, 6, 40, 3)),
}
NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EXPANSION = 4
zeros = nn.initializers.zeros


class Layer(nn.Module):
  """Attention and FFN, each added to what it is of.

  Attributes:
    num_heads: Heads of attention.
    reduction: Side of the patches that keys and values are of.
    drop_rate: Share of images whose branches are left out in training.
  """

  num_heads: int
  reduction: int
  drop_rate: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    drop = nn.Dropout(
      self.drop_rate, broadcast_dims=(1, 2, 3), deterministic=not train
    )
    attention = ReducedAttention(
      self.num_heads, self.reduction, name='attention'
    )
    x = x + drop(attention(layer_norm('norm_attention', x), extent))
    return x + drop(self._ffn(layer_norm('norm_ffn', x), extent))

  def _ffn(self, x, extent):
    width = x.shape[-1]
    x = self._conv(EXPANSION * width, 'expand')(x)
    x = Conv(
      EXPANSION * width,
      3,
      use_bias=True,
      kernel_init=nn.initializers.normal(np.sqrt(2 / 9)),  # 9 by fan-out
      bias_init=zeros,
      groups=EXPANSION * width,
      name='depthwise',
    )(x, extent)
    return self._conv(width, 'contract')(jax.nn.gelu(x, approximate=False))

  def _conv(self, features, name):
    return Conv(features, use_bias=True, bias_init=zeros, name=name)


class Patches(nn.Module):
  """Overlapping patches: a strided convolution, normalised."""

  features: int
  size: int
  stride: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w _'], extent: Int[Array, 'b 2'] | None
  ) -> Float[Array, 'b ho wo features']:
    x = Conv(
      self.features,
      self.size,
      self.stride,
      use_bias=True,
      kernel_init=kaiming_fan_out,
      bias_init=zeros,
      name='patch',
    )(x, extent)
    return layer_norm('norm_patch', x)


class MixTransformer(nn.Module):
  """The backbone: an image to the features of its four stages.

  Attributes:
    widths: Channels of each stage.
    stage_sizes: Layers of each stage.
    drop_path_rate: Share of images whose branches the last layer leaves out in
      training; the others do so the less, the earlier they are.
    remat: Whether training keeps only the layers' inputs for the gradients, and
      computes each layer anew.
  """

  widths: tuple[int, ...]
  stage_sizes: tuple[int, ...]
  drop_path_rate: float
  remat: bool

  output_stride = 32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w 3'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> tuple[Float[Array, 'b _ _ _'], ...]:
    """Returns the four stages' features, finest first.

    In training the rng stream 'dropout' is needed unless drop_path_rate is 0.
    """
    # Its `train`, a Python bool, is an argument by position: number 2.
    layer = nn.remat(Layer, static_argnums=(2,)) if self.remat else Layer
    rates = iter(np.linspace(0, self.drop_path_rate, sum(self.stage_sizes)))
    outputs = []
    extents = (extent, *self.out_extents(extent))
    for stage, layers in enumerate(self.stage_sizes):
      size, stride = (3, 2) if stage else (7, 4)
      patches = Patches(
        self.widths[stage], size, stride, name=f'patches{stage + 1}'
      )
      x = patches(x, extents[stage])
      for i in range(layers):
        x = layer(
          NUM_HEADS[stage],
          REDUCTIONS[stage],
          float(next(rates)),
          name=f'layer{stage + 1}_{i}',
        )(x, train, extents[stage + 1])
      x = layer_norm(f'norm_stage{stage + 1}', x)
      outputs.append(x)
    return tuple(outputs)

  def out_extents(
    self, extent: Int[Array, 'b 2'] | None
  ) -> tuple[Int[Array, 'b 2'] | None, ...]:
    """The images' extents in the four stages' features."""
    extents = [halve(halve(extent))]
    for _ in range(3):
      extents.append(halve(extents[-1]))
    return tuple(extents)


def create(
  norm_momentum: float,
  *,
  variant: str = 'b0',
  widths: Sequence[int] = (),
  stage_sizes: Sequence[int] = (),
  drop_path_rate: float = 0.1,
  remat: bool = False,
) -> MixTransformer:
  """The backbone of a configuration, checked; arguments as of `MixTransformer`.

  Beside those, variant: one of VARIANTS; widths and stage_sizes are those of a
  variant of your own, or empty.

  Raises:
    UserError: A value that no such network has.
  """
  del norm_momentum  # of batch normalisation, which it has not
  if variant not in VARIANTS:
    raise UserError(
      f'model.backbone.variant is {variant!r}; known are {", ".join(VARIANTS)}'
    )
  known = VARIANTS[variant]
  widths, sizes = tuple(widths) or known[0], tuple(stage_sizes) or known[1]
  if len(sizes) != 4 or min(sizes) < 1:
    raise UserError(
      f'model.backbone.stage_sizes is {sizes}; there are four stages of at '
      'least one layer'
    )
  if len(widths) != 4 or any(
    width < 1 or width % heads
    for width, heads in zip(widths, NUM_HEADS, strict=True)
  ):
    raise UserError(
      f'model.backbone.widths is {widths}; give four, multiples of {NUM_HEADS}'
    )
  if not 0 <= drop_path_rate < 1:
    raise UserError(
      f'model.backbone.drop_path_rate is {drop_path_rate}; it must be in [0, 1)'
    )
  return MixTransformer(widths, sizes, drop_path_rate, remat)
