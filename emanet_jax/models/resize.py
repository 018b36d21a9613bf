"""Bilinear resizing as dense products, one an axis.

Twice as fast as gathers on a CPU, and what accelerators are made for. The
flag `align_corners` is PyTorch's: the centres of corner pixels coincide (the
authors), or their outer edges do.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array


def resize_bilinear(
  x: Float[Array, 'b h w c'], size: tuple[int, int], *, align_corners: bool
) -> Float[Array, 'b ho wo c']:
  """Bilinear interpolation of whole features.

  Args:
    x: Features; the result keeps their dtype.
    size: Output height and width, in pixels.
    align_corners: See above.
  """
  if tuple(size) == x.shape[1:3]:
    return x
  rows, cols = (
    interpolation(
      jnp.array(length), jnp.array(out), (out, length), align_corners
    )
    for length, out in zip(x.shape[1:3], size, strict=True)
  )
  product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  x = product('oh,bhwc->bowc', rows.astype(x.dtype), x)
  return product('ow,bhwc->bhoc', cols.astype(x.dtype), x)


def interpolate(
  x: Float[Array, 'b h w c'],
  rows: Float[Array, 'b ho h'],
  cols: Float[Array, 'b wo w'],
) -> Float[Array, 'b ho wo c']:
  """Resizes each image by matrices of its own, see `interpolation`."""
  product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  x = product('boh,bhwc->bowc', rows.astype(x.dtype), x)
  return product('bow,bhwc->bhoc', cols.astype(x.dtype), x)


def resize_to(
  other: Float[Array, 'b ho wo _'],
  x: Float[Array, 'b h w c'],
  other_extent: Int[Array, 'b 2'] | None,
  extent: Int[Array, 'b 2'] | None,
  *,
  align_corners: bool,
) -> Float[Array, 'b ho wo c']:
  """Brings features to the size of others, image by image.

  Args:
    other: Of the size that is wanted.
    x: Features; the result keeps their dtype.
    other_extent: The images' in `other`, see `models/layers.py`.
    extent: The images' in x; both None where images fill the batch.
    align_corners: See above.
  """
  if extent is other_extent and x.shape[1:3] == other.shape[1:3]:
    return x
  if extent is None:
    return resize_bilinear(x, other.shape[1:3], align_corners=align_corners)
  ways = (
    interpolation(
      extent[:, axis],
      other_extent[:, axis],
      (other.shape[1 + axis], x.shape[1 + axis]),
      align_corners,
    )
    for axis in (0, 1)
  )
  return interpolate(x, *ways)


def interpolation(
  length: Int[Array, '*b'],
  out: Int[Array, '*b'],
  shape: tuple[int, int],
  align_corners: bool,
  mirrored: Bool[Array, ''] | bool = False,
) -> Float[Array, '*b {shape[0]} {shape[1]}']:
  """Weights of 1-D linear interpolations between lengths that may be traced.

  Args:
    length: Of each input, in pixels, at most shape[1].
    out: Of each output, at most shape[0].
    shape: Rows and columns of the matrices, which hold zeros beyond.
    align_corners: See above.
    mirrored: Whether the input is mirrored as well.

  Returns:
    float32 matrices to multiply inputs with, float64 in JAX's x64 mode.
    Positions are whole numbers and remainders, so that their rounding does not
    grow with the length.
  """
  length, out = length[..., None], out[..., None]
  place = jnp.arange(shape[0])
  # Row i of the matrix makes output i: mirroring reorders the rows.
  place = jnp.where(mirrored, out - 1 - place, place)
  # The source position of each output, as a fraction of whole numbers.
  if align_corners:
    numerator, denominator = place * (length - 1), jnp.maximum(out - 1, 1)
  else:
    denominator = 2 * out
    numerator = (2 * place + 1) * length - out
    numerator = jnp.clip(numerator, 0, (length - 1) * denominator)
  denominator = jnp.maximum(denominator, 1)
  low = (numerator // denominator)[..., None]
  high = jnp.minimum(low + 1, length[..., None] - 1)
  share = ((numerator % denominator) / denominator)[..., None]
  column = jnp.arange(shape[1])
  weights = (column == low) * (1 - share) + (column == high) * share
  wanted = (place >= 0) & (place < out)
  return jnp.where(wanted[..., None], weights, 0).astype(float)
