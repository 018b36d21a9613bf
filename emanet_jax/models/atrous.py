"""What atrous convolutions and their gradients are made of."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from emanet_jax.array import Array

# A tap of a kernel along one axis: the outputs it reaches and the inputs it
# reads, equally many; None where all that it meets is padding.
Tap = tuple[slice, slice] | None


def taps(length: int, size: int, stride: int, dilation: int) -> list[Tap]:
  """The taps along an axis of `length` pixels, of a kernel `size` long."""
  found = []
  for tap in range(size):
    shift = (tap - size // 2) * dilation
    first = max(0, -(shift // stride))
    stop = min(-(-length // stride), (length - 1 - shift) // stride + 1)
    read = slice(
      first * stride + shift, (stop - 1) * stride + shift + 1, stride
    )
    found.append((slice(first, stop), read) if first < stop else None)
  return found


def reached(length: int, size: int, dilation: int) -> int:
  """Pairs of a tap and an input along an axis, without padding; stride 1."""
  found = [tap[0] for tap in taps(length, size, 1, dilation) if tap]
  return sum(outputs.stop - outputs.start for outputs in found)


def library_conv(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  stride: int,
  dilation: int,
) -> Float[Array, 'b ho wo f']:
  """XLA's convolution, with PyTorch's symmetric padding."""
  pad = dilation * (kernel.shape[0] // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=precision(x),
  )


def precision(x: Float[Array, '...']) -> lax.Precision | None:
  """float32 means float32 on accelerators too, not TF32 or passes of bf16."""
  return None if x.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
