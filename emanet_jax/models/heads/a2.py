"""A²-Net's double attention in a segmentation head like Non-local's.

Chen et al., "A²-Nets: Double Attention Networks" (NeurIPS 2018), put the block
into backbones for classification; the EMANet paper compares with it and does
not say in which head.
"""

import flax.linen as nn
import jax
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.gather import gather_weights
from emanet_jax.models.attention.non_local import restore
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.heads._shared import BlockHead, check, conv1x1
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import sow_attention

FREE_IN_EVALUATION = ('dropout_rate',)


class DoubleAttention(nn.Module):
  """Gathers descriptors of the image, and gives each pixel a mixture of them.

  With features A of m channels, scores B and V of n, all 1×1 convolutions of x,

    Gₖ = Σⱼ softmaxⱼ(Bⱼₖ) Aⱼ,   zᵢ = Σₖ softmaxₖ(Vᵢₖ) Gₖ;
    out = x + BN(W z).

  (Many copies take the second softmax over pixels, too; the paper's weights sum
  up to 1 at each pixel.) The normalisation is by analogy with Non-local's, and
  its scale 0 at the start. Costs 2·n·m multiply-adds a pixel.

  Attributes:
    inner_channels: m.
    num_maps: n.
    norm_momentum: Share of running statistics kept per step.
  """

  inner_channels: int
  num_maps: int
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    a = flatten(conv1x1(self.inner_channels, 'features')(x))
    b = flatten(conv1x1(self.num_maps, 'gather')(x))
    v = flatten(conv1x1(self.num_maps, 'distribute')(x))
    gathered = gather_weights(b, positions_inside(extent, x.shape))
    shares = jax.nn.softmax(at_least_float32(v), axis=-1)
    sow_attention(self, 'attention through descriptors', shares, gathered)
    z = weighted_sums(shares, weighted_sums(gathered, a))
    z = z.reshape(*x.shape[:-1], -1)
    return x + restore(x.shape[-1], self.norm_momentum)(z, train=train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 128,
  num_maps: int = 128,
  dropout_rate: float = 0.1,
) -> BlockHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `BlockHead`.
    inner_channels: See `DoubleAttention`; the paper has channels / 4.
    num_maps: See `DoubleAttention`; the paper has channels / 4.
    dropout_rate: See `BlockHead`.

  Raises:
    UserError: A value that no such head has.
  """
  widths = {'inner_channels': inner_channels, 'num_maps': num_maps}
  check('a2', dropout_rate, channels=channels, **widths)
  block = DoubleAttention(inner_channels, num_maps, norm_momentum)
  return BlockHead(num_classes, channels, dropout_rate, norm_momentum, block)
