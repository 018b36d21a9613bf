"""Attention in heads, whose keys and values are of patches of r×r pixels.

With queries q, keys k and values v, projections of x and of its n/r² patches,
each cut into heads of d channels,

  yᵢ = Σⱼ softmaxⱼ(qᵢ·kⱼ / √d) vⱼ;  out = W y  (Xie et al., SegFormer, 3.1).

It costs 2·n²·c/r², and keeps n²/r² weights a head for the gradient. Pixels that
fill no whole patch, at the lower and right edges, are in no key.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.non_local import softmax_weights
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.convolution.atrous import precision
from emanet_jax.models.layers import layer_norm

truncated = nn.initializers.truncated_normal(0.02)
zeros = nn.initializers.zeros


class ReducedAttention(nn.Module):
  """The block, without the sum with x.

  Attributes:
    num_heads: Heads, which divide the channels.
    reduction: r; 1: keys and values of single pixels.
  """

  num_heads: int
  reduction: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], extent: Int[Array, 'b 2'] | None = None
  ) -> Float[Array, 'b h w c']:
    channels, source = x.shape[-1], x
    if self.reduction > 1:
      source = _Reduce(self.reduction, name='reduce')(x)
      source = layer_norm('norm_reduced', source)
      extent = None if extent is None else extent // self.reduction
    query, key, value = _InProjection(name='in_proj')(
      flatten(x), flatten(source)
    )
    heads = (self.num_heads, channels // self.num_heads)
    counted = positions_inside(extent, source.shape)

    def attend(query, key, value):
      weights = softmax_weights(query, key, counted, np.sqrt(heads[1]))
      return weighted_sums(weights, value)

    y = jax.vmap(attend, 2, 2)(
      *(part.reshape(*part.shape[:2], *heads) for part in (query, key, value))
    )
    # An image smaller than r has no key at all, whatever else is in the batch.
    y = jnp.where(counted.any(-1)[:, None, None, None], y, 0)
    return nn.Dense(
      channels,
      dtype=x.dtype,
      precision=precision(x),
      kernel_init=truncated,
      name='out_proj',
    )(y.reshape(x.shape))


class _InProjection(nn.Module):
  """Queries of x, keys and values of the source, by one kernel [c, 3 c]."""

  @nn.compact
  def __call__(self, x, source):
    channels = x.shape[-1]
    kernel = self.param('kernel', truncated, (channels, 3 * channels))
    bias = self.param('bias', zeros, (3 * channels,))

    def project(x, columns):
      weights = kernel[:, columns].astype(x.dtype)
      y = jnp.einsum('bnc,cd->bnd', x, weights, precision=precision(x))
      return y + bias[columns].astype(x.dtype)

    both = project(source, slice(channels, None))
    return project(x, slice(channels)), *jnp.split(both, 2, axis=-1)


class _Reduce(nn.Module):
  """A convolution of r×r at every r-th pixel: a product of whole patches."""

  reduction: int

  @nn.compact
  def __call__(self, x):
    r, (b, *size, c) = self.reduction, x.shape
    init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
    kernel = self.param('kernel', init, (r, r, c, c)).astype(x.dtype)
    bias = self.param('bias', zeros, (c,))
    h, w = (n // r for n in size)
    x = x[:, : h * r, : w * r].reshape(b, h, r, w, r, c)
    y = jnp.einsum('bhiwjc,ijcd->bhwd', x, kernel, precision=precision(x))
    return y + bias.astype(y.dtype)
