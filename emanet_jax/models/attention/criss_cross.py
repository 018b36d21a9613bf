"""Criss-cross attention (Huang et al., CCNet, ICCV 2019).

A pixel attends to its row and its column, with one softmax over both; itself it
meets once, in its row. Of the n² affinities between all pixels, only the
n·(h + w) that count are ever computed; costs n·(h + w)·(d + c), with queries
and keys of d channels and values of c.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import product, softmax_where


def criss_cross_attention(
  query: Float[Array, 'b h w d'],
  key: Float[Array, 'b h w d'],
  value: Float[Array, 'b h w c'],
  counted: Bool[Array, 'b h w'],
) -> Float[Array, 'b h w c']:
  """Σⱼ softmaxⱼ(query·keyⱼ) valueⱼ over the counted j of row and column.

  Returns:
    Averages of the values, in their dtype; the softmax is float32 or wider.
  """
  height = query.shape[1]
  column = product('byxd,bjxd->byxj', query, key)
  row = product('byxd,byjd->byxj', query, key)
  others = ~jnp.eye(height, dtype=bool)[:, None]
  in_column = counted.swapaxes(1, 2)[:, None] & others
  where = jnp.concatenate(
    [
      jnp.broadcast_to(in_column, column.shape),
      jnp.broadcast_to(counted[:, :, None], row.shape),
    ],
    axis=-1,
  )
  affinity = jnp.concatenate([column, row], axis=-1)
  weights = softmax_where(affinity, where, -1).astype(value.dtype)
  y = product('byxj,bjxc->byxc', weights[..., :height], value)
  y = y + product('byxj,byjc->byxc', weights[..., height:], value)
  return y.astype(value.dtype)
