"""The Non-local block (Wang et al., CVPR 2018).

With queries θ, keys φ and values g, 1×1 convolutions of x to d channels,

  yᵢ = Σⱼ softmaxⱼ(θᵢ·φⱼ / √d) gⱼ,   or Σⱼ (θᵢ·φⱼ) gⱼ / n;
  out = x + BN(W y).

The paper's formula has no √d, its code has. Costs 2·n²·d, and 'softmax' keeps
the matrix of n² for the gradient; 'dot' costs 2·n·d².
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  product,
  softmax_where,
  weighted_sums,
)
from emanet_jax.models.layers import Conv, ConvNorm
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import attention_wanted, sow_attention

PAIRWISE = ('softmax', 'dot')
TO_ALL = 'attention to all pixels'
near_zero = nn.initializers.normal(0.01)


class NonLocal(nn.Module):
  """The block, with the normalisation's scale 0 at the start.

  Attributes:
    inner_channels: d.
    pairwise: 'softmax' (the paper's embedded Gaussian) or 'dot'.
    use_scale: Whether the softmax's products are divided by √d.
    norm_momentum: Share of running statistics kept per step.
  """

  inner_channels: int
  pairwise: str
  use_scale: bool
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    theta, phi, g = (
      flatten(project(self.inner_channels, name)(x))
      for name in ('theta', 'phi', 'g')
    )
    counted = positions_inside(extent, x.shape)
    if self.pairwise == 'dot':
      y = dot_attention(theta, phi, g, counted)
      if attention_wanted(self):
        weights = dot_weights(theta, phi, counted)
        sow_attention(self, TO_ALL, weights)
    else:
      scale = np.sqrt(self.inner_channels) if self.use_scale else 1.0
      weights = softmax_weights(theta, phi, counted, scale)
      sow_attention(self, TO_ALL, weights)
      y = weighted_sums(weights, g)
    y = y.reshape(*x.shape[:-1], -1)
    return x + restore(x.shape[-1], self.norm_momentum)(y, train=train)


def project(features: int, name: str) -> Conv:
  """A 1×1 convolution that begins near 0, as queries, keys and values do."""
  return Conv(features, use_bias=True, kernel_init=near_zero, name=name)


def restore(features: int, norm_momentum: float) -> ConvNorm:
  """The way back to x's width; at the start it gives 0: the block is x."""
  return ConvNorm(
    features,
    norm_momentum=norm_momentum,
    use_relu=False,
    norm_scale_init=nn.initializers.zeros,
    name='conv_out',
  )


def softmax_weights(
  query: Float[Array, 'b m d'],
  key: Float[Array, 'b n d'],
  counted: Bool[Array, 'b n'],
  scale: float,
) -> Float[Array, 'b m n']:
  """softmaxⱼ(queryᵢ·keyⱼ / scale) over the counted j; float32 or wider."""
  affinity = product('bid,bjd->bij', query, key) / scale
  return softmax_where(affinity, counted[:, None], -1)


def dot_attention(
  query: Float[Array, 'b m d'],
  key: Float[Array, 'b n d'],
  value: Float[Array, 'b n c'],
  counted: Bool[Array, 'b n'],
) -> Float[Array, 'b m c']:
  """Σⱼ (query·keyⱼ) valueⱼ / n over the n counted j; value's dtype.

  From right to left: d·c·n multiply-adds instead of n².
  """
  value = jnp.where(counted[..., None], value, 0)
  gathered = product('bjd,bjc->bdc', key, value)
  y = product('bid,bdc->bic', at_least_float32(query), gathered)
  count = jnp.maximum(counted.sum(-1), 1)[:, None, None]
  return (y / count).astype(value.dtype)


def dot_weights(
  query: Float[Array, 'b m d'],
  key: Float[Array, 'b n d'],
  counted: Bool[Array, 'b n'],
) -> Float[Array, 'b m n']:
  """The queryᵢ·keyⱼ / n that `dot_attention` never makes; float32 or wider."""
  affinity = product('bid,bjd->bij', query, key)
  count = jnp.maximum(counted.sum(-1), 1)[:, None, None]
  return jnp.where(counted[:, None], affinity, 0) / count
