"""Atrous convolution, with gradients that are products.

The gradient of the filter is where compilers lose their time: on CPUs it takes
several times the forward pass, and on GPUs that of a dilated 3×3 becomes a
convolution with a kernel as large as the features. Here it is what it is on
paper: for each tap of the kernel, the product of the shifted input with the
output's gradient. A tap meets only that part of the input which its shift
leaves inside; for the wide dilations of atrous networks that is much less than
all, and CPUs convolve tap by tap for the same reason.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Float

from emanet_jax.array import Array

# A tap of the kernel along one axis: the outputs it reaches and the inputs it
# reads, each as many; None where the padding is all it meets.
_Tap = tuple[slice, slice] | None

# Channels up to which the taps of a kernel's row share one product: wider
# products are faster, but the row has to be copied together.
_ROW_CHANNELS = 256
# CPUs convolve tap by tap where less than this share of a convolution's
# products is with other than padding, or from so many channels on.
_DENSE = 0.9
_WIDE = 512


def conv2d(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  *,
  stride: int = 1,
  dilation: int = 1,
) -> Float[Array, 'b ho wo f']:
  """Atrous convolution, padded by `dilation * (k - 1) / 2` on every side.

  Args:
    x: Input, in the compute dtype.
    kernel: Odd square kernel, usually float32; cast to x's dtype for the
      products, while its gradient is accumulated and returned in its own dtype.
    stride: Step between outputs, in pixels.
    dilation: Distance between taps, in pixels.

  Returns:
    Convolved features in x's dtype; ho = ceil(h / stride).
  """
  return _conv(x, kernel, stride, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, stride, dilation):
  kernel = kernel.astype(x.dtype)
  if stride == 1:
    return _same_size(x, kernel, dilation, turned=False)
  return _strided(x, kernel, stride, dilation)


def _conv_forward(x, kernel, stride, dilation):
  return _conv(x, kernel, stride, dilation), (x, kernel)


def _conv_backward(stride, dilation, residuals, dy):
  x, kernel = residuals
  weights = kernel.astype(x.dtype)
  if stride == 1:
    dx = _same_size(dy, weights, dilation, turned=True)
  else:
    _, vjp = jax.vjp(lambda x: _strided(x, weights, stride, dilation), x)
    (dx,) = vjp(dy)
  dkernel = _by_platform(
    _filter_gradient,
    _filter_gradient,
    size=kernel.shape[0],
    stride=stride,
    dilation=dilation,
  )(x, dy)
  return dx, dkernel.astype(kernel.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


def _precision(x):
  # float32 means float32 on accelerators too, not TF32 or a pass of bfloat16.
  return None if x.dtype == jnp.bfloat16 else lax.Precision.HIGHEST


def _by_platform(cpu: Callable, default: Callable, **options) -> Callable:
  """One jitted function for CPUs, another for the rest; options are static.

  On CPUs it stays a program of its own: equal layers share it, which shortens
  the compilation, and what it begins with (a transposition, slices) is not
  merged with what made its input, which XLA then would compute anew, element
  by element and in the slowest order.
  """

  def alone(*args):
    with set_xla_metadata(inlineable='false'):
      return cpu(*args, **options)

  return lambda *args: lax.platform_dependent(
    *args, cpu=alone, default=functools.partial(default, **options)
  )


def _product(x, matrix, turned=False):
  indices = 'bhwf,cf->bhwc' if turned else 'bhwc,cf->bhwf'
  return jnp.einsum(indices, x, matrix, precision=_precision(x))


def _library(x, kernel, stride, dilation):
  pad = dilation * (kernel.shape[0] // 2)
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=_precision(x),
  )


def _strided(x, kernel, stride, dilation):
  if kernel.shape[0] == 1:
    return _product(x[:, ::stride, ::stride], kernel[0, 0])
  return _library(x, kernel, stride, dilation)


def _same_size(x, kernel, dilation, turned):
  """Stride 1; `turned`: with the kernel turned round, as its gradient takes it.

  A kernel turned round has its channels exchanged as well.
  """
  size, options = kernel.shape[0], {'dilation': dilation, 'turned': turned}
  if size == 1:
    return _product(x, kernel[0, 0], turned)
  useful = 1.0
  for length in x.shape[1:3]:
    reached = [tap[0] for tap in _taps(length, size, 1, dilation) if tap]
    useful *= sum(r.stop - r.start for r in reached) / (size * length)
  if useful >= _DENSE and min(kernel.shape[2:]) < _WIDE:
    return _whole(x, kernel, **options)
  return _by_platform(_tap_by_tap, _whole, **options)(x, kernel)


def _whole(x, kernel, dilation, turned):
  if turned:
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  return _library(x, kernel, 1, dilation)


def _taps(length: int, size: int, stride: int, dilation: int) -> list[_Tap]:
  """The taps along an axis of so many pixels."""
  taps = []
  for tap in range(size):
    shift = (tap - size // 2) * dilation
    first = max(0, -(shift // stride))
    stop = min(-(-length // stride), (length - 1 - shift) // stride + 1)
    read = slice(
      first * stride + shift, (stop - 1) * stride + shift + 1, stride
    )
    taps.append((slice(first, stop), read) if first < stop else None)
  return taps


@functools.partial(jax.jit, static_argnames=('dilation', 'turned'))
def _tap_by_tap(x, kernel, dilation, turned):
  """The convolution as a sum over the taps, without the padding."""
  size, middle = kernel.shape[0], kernel.shape[0] // 2
  rows, cols = (_taps(n, size, 1, dilation) for n in x.shape[1:3])

  def part(i, j, x):
    tap = kernel[-1 - i, -1 - j] if turned else kernel[i, j]
    return _product(x, tap, turned)

  y = part(middle, middle, x)
  for i, row in enumerate(rows):
    for j, col in enumerate(cols):
      if row and col and (i, j) != (middle, middle):
        there = part(i, j, x[:, row[1], col[1]])
        y = y.at[:, row[0], col[0]].add(there)
  return y


@functools.partial(jax.jit, static_argnames=('size', 'stride', 'dilation'))
def _filter_gradient(x, dy, size, stride, dilation):
  """Gradient of the kernel [size, size, c, f], in float32 or wider.

  The first factor of each product has its channels first. It is made of dy,
  once, and the products come out as [f, c]: turning them at the end, together,
  is cheap.
  """
  channels, features = x.shape[-1], dy.shape[-1]
  dtype = jnp.promote_types(x.dtype, jnp.float32)

  def product(first, second):
    return lax.dot_general(
      first,
      second,
      (((1, 2, 3), (0, 1, 2)), ((), ())),
      precision=_precision(dy),
      preferred_element_type=dtype,
    )

  channels_first = _by_platform(_store_channels_first, _channels_first)
  if size == 1:
    x = x[:, ::stride, ::stride]
    if channels < features:
      return product(channels_first(x), dy)[None, None]
    return product(channels_first(dy), x).T[None, None]

  rows, cols = (_taps(n, size, stride, dilation) for n in x.shape[1:3])
  dy = channels_first(dy)
  if channels > _ROW_CHANNELS:
    taps = [
      product(dy[:, :, row[0], col[0]], x[:, row[1], col[1]])
      if row and col
      else jnp.zeros((features, channels), dtype)
      for row in rows
      for col in cols
    ]
    gradient = jnp.stack(taps).reshape(size, size, features, channels)
    return gradient.swapaxes(2, 3)

  pad = dilation * (size // 2)
  x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
  span = (dy.shape[3] - 1) * stride + 1
  starts = [j * dilation for j in range(size)]

  def row_of_taps(row):
    taps = [x[:, row[1], j : j + span : stride] for j in starts]
    return product(dy[:, :, row[0]], jnp.concatenate(taps, axis=-1))

  gradient = jnp.stack(
    [
      row_of_taps(row) if row else jnp.zeros((features, size * channels), dtype)
      for row in rows
    ]
  )
  gradient = gradient.reshape(size, features, size, channels)
  return gradient.transpose(0, 2, 3, 1)


def _channels_first(x):
  return jnp.moveaxis(x, -1, 0)


@jax.jit
def _store_channels_first(x):
  return with_layout_constraint(_channels_first(x), Layout((0, 1, 2, 3)))
