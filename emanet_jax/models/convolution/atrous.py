"""What atrous convolutions and their gradients are made of."""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from emanet_jax.array import Array

# A tap of a kernel along one axis: the outputs it reaches and the inputs it
# reads, equally many; None where all that it meets is padding.
Tap = tuple[slice, slice] | None

# Channels that a TPU multiplies by at a time.
_LANES = 128


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
  kernel: Float[Array, 'kh kw _ f'],
  stride: int,
  dilation: int,
) -> Float[Array, 'b ho wo f']:
  """XLA's convolution, with PyTorch's padding, in groups where c is more."""
  pad = dilation * (kernel.shape[0] // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
    precision=precision(x),
  )


def library_conv_or_patches(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  stride: int,
  dilation: int,
) -> Float[Array, 'b ho wo f']:
  """XLA's convolution; on TPUs of patches, where their values are at most 128.

  TPUs multiply by so many channels at a time: an image's three, tap by tap, are
  nearly all padding. By XLA's estimates for v5e, patches save 1.4 % of a whole
  training step with ResNet-50 and eight images a chip, and cost 0.6 % with
  four; of a 7×7 stem they would cost dearly. Two taps at a time of the 64
  channels that come next would make the step a tenth longer.
  """
  options = {'stride': stride, 'dilation': dilation}
  whole = functools.partial(library_conv, **options)
  if math.prod(kernel.shape[:3]) > _LANES:
    return whole(x, kernel)
  patches = functools.partial(_of_patches, **options)
  return lax.platform_dependent(x, kernel, tpu=patches, default=whole)


def _of_patches(x, kernel, stride, dilation):
  """Patches [b, ho, wo, kh kw c] times the kernel as a matrix."""
  size, pad = kernel.shape[0], dilation * (kernel.shape[0] // 2)
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  # From the first pixel to the last that a tap reads.
  height, width = (
    (n - 2 * pad - 1) // stride * stride + 1 for n in x.shape[1:3]
  )
  shifted = [
    x[:, i : i + height : stride, j : j + width : stride]
    for i in range(0, size * dilation, dilation)
    for j in range(0, size * dilation, dilation)
  ]
  kernel = kernel.reshape(1, 1, -1, kernel.shape[-1])
  return library_conv(jnp.concatenate(shifted, axis=-1), kernel, 1, 1)


def precision(x: Float[Array, '...']) -> lax.Precision | None:
  """float32 means float32 on accelerators too, not TF32 or passes of bf16."""
  return None if x.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
