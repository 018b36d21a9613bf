"""What attention blocks have in common: products, and softmaxes over pixels."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.models.layers import inside
from emanet_jax.models.norm import at_least_float32


def product(
  equation: str, *operands: Float[Array, '...']
) -> Float[Array, '...']:
  """An einsum of features of any dtype, summed in float32 or wider."""
  wide = jnp.promote_types(jnp.result_type(*operands), jnp.float32)
  return jnp.einsum(
    equation,
    *operands,
    precision=lax.Precision.HIGHEST,
    preferred_element_type=wide,
  )


def weighted_sums(
  weights: Float[Array, 'b m n'], value: Float[Array, 'b n c']
) -> Float[Array, 'b m c']:
  """Σⱼ weightsᵢⱼ valueⱼ for each i; value's dtype."""
  y = product('bij,bjc->bic', weights.astype(value.dtype), value)
  return y.astype(value.dtype)


def flatten(x: Float[Array, 'b h w c']) -> Float[Array, 'b n c']:
  """Positions in one axis, row by row."""
  return x.reshape(x.shape[0], -1, x.shape[-1])


def positions_inside(
  extent: Int[Array, 'b 2'] | None, shape: tuple[int, ...]
) -> Bool[Array, 'b n']:
  """Which positions of features [b, h, w, c] are of the images."""
  if extent is None:
    return jnp.ones((shape[0], shape[1] * shape[2]), bool)
  return inside(extent, shape[1:3]).reshape(shape[0], -1)


def softmax_where(
  x: Float[Array, '...'], where: Bool[Array, '...'], axis: int
) -> Float[Array, '...']:
  """The softmax of some values, in float32 or wider; the others get 0.

  Args:
    x: Values.
    where: Which count, as broadcast to x. Where none does, all get the same.
    axis: Along which it sums up to 1.
  """
  x = at_least_float32(x)
  least = jnp.finfo(x.dtype).min
  return jax.nn.softmax(jnp.where(where, x, least), axis=axis)
