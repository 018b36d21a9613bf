"""Attention between channels (Fu et al., DANet, CVPR 2019, 3.3).

With the features as columns of X, c channels of n pixels, and no weights,

  A = softmax(-X Xᵀ) along its last axis,   Y = A X:

a channel attends to those that are least like it. (The authors' code does so;
the paper's formula has no minus.) Costs 2·n·c².
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import product


def channel_attention(
  x: Float[Array, 'b n c'], counted: Bool[Array, 'b n']
) -> Float[Array, 'b n c']:
  """Y of the counted positions; x's dtype, the softmax float32 or wider."""
  inside = jnp.where(counted[..., None], x, 0)
  energy = product('bic,bid->bcd', inside, inside)
  weights = jax.nn.softmax(-energy, axis=-1)
  y = product('bcd,bid->bic', weights.astype(x.dtype), x)
  return y.astype(x.dtype)
