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


def criss_cross_weights(
  query: Float[Array, 'b h w d'],
  key: Float[Array, 'b h w d'],
  counted: Bool[Array, 'b h w'],
) -> Float[Array, 'b h w h+w']:
  """softmaxⱼ(query·keyⱼ) over the counted j of column and row.

  Returns:
    Weights of each pixel's column, its own 0, and then of its row, float32 or
    wider.
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
  return softmax_where(affinity, where, -1)


def criss_cross_sums(
  weights: Float[Array, 'b h w h+w'], value: Float[Array, 'b h w c']
) -> Float[Array, 'b h w c']:
  """Averages of the values by such weights; value's dtype."""
  height, weights = value.shape[1], weights.astype(value.dtype)
  y = product('byxj,bjxc->byxc', weights[..., :height], value)
  y = y + product('byxj,byjc->byxc', weights[..., height:], value)
  return y.astype(value.dtype)


def all_pairs(weights: Float[Array, 'b h w h+w']) -> Float[Array, 'b n n']:
  """Such weights among those of all pixels; the others get 0."""
  batch, height, width, _ = weights.shape
  # [b, y, x, y', x'], where a column has x' = x and a row y' = y.
  column = weights[..., :height, None] * jnp.eye(width)[:, None]
  row = weights[..., None, height:] * jnp.eye(height)[:, None, :, None]
  return (column + row).reshape(batch, height * width, height * width)
