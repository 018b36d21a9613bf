"""Atrous convolution with a gradient of our own.

The compilers' weak spot is the gradient of the filter. On CPUs it is several
times slower than the forward pass; on GPUs, that of a dilated 3×3 becomes a
convolution with a kernel as large as the features. Here it is what it is on
paper: for each tap of the kernel, the product of the shifted input with the
output's gradient. A tap only meets the part of the input that its shift leaves
inside, which for the wide dilations of atrous networks is much less than all.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Float

from emanet_jax.array import Array

# Channels up to which the three taps of a kernel's row share a product: more
# columns for it, at the price of copies.
_ROW_CHANNELS = 256
# Share of useful products below which CPUs convolve tap by tap.
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
  if kernel.shape[:2] == (1, 1):
    return _product(x[:, ::stride, ::stride], kernel[0, 0])
  if stride == 1:
    return _same_size(x, kernel, dilation)
  return _library(x, kernel, stride, dilation)


def _conv_forward(x, kernel, stride, dilation):
  return _conv(x, kernel, stride, dilation), (x, kernel)


def _conv_backward(stride, dilation, residuals, dy):
  x, kernel = residuals
  dkernel = _filter_gradient(x, dy, kernel.shape, stride, dilation)
  weights = kernel.astype(x.dtype)
  if kernel.shape[:2] == (1, 1) and stride == 1:
    dx = _product(dy, weights[0, 0], turned=True)
  elif stride == 1:
    dx = _same_size(dy, weights, dilation, turned=True)
  else:
    _, vjp = jax.vjp(lambda x: _conv_plain(x, weights, stride, dilation), x)
    (dx,) = vjp(dy)
  return dx, dkernel.astype(kernel.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


def _conv_plain(x, kernel, stride, dilation):
  if kernel.shape[:2] == (1, 1):
    return _product(x[:, ::stride, ::stride], kernel[0, 0])
  return _library(x, kernel, stride, dilation)


def _precision(x):
  # float32 means float32 on accelerators too, not TF32 or a pass of bfloat16.
  return None if x.dtype == jnp.bfloat16 else lax.Precision.HIGHEST


def _product(x, matrix, turned=False):
  indices = 'bhwf,cf->bhwc' if turned else 'bhwc,cf->bhwf'
  return jnp.einsum(indices, x, matrix, precision=_precision(x))


def _library(x, kernel, stride, dilation):
  pad = dilation * (kernel.shape[0] - 1) // 2
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=_precision(x),
  )


def _taps(
  length: int, size: int, stride: int, dilation: int
) -> Iterator[tuple[int, slice, slice]]:
  """For each tap along an axis: the outputs it reaches, the inputs it reads."""
  outputs = -(-length // stride)
  for tap in range(size):
    shift = (tap - size // 2) * dilation
    first = max(0, -(shift // stride))
    last = min(outputs, (length - 1 - shift) // stride + 1)
    if first < last:
      start = first * stride + shift
      stop = (last - 1) * stride + shift + 1
      yield tap, slice(first, last), slice(start, stop, stride)


def _same_size(x, kernel, dilation, turned=False):
  """Stride 1; `turned` is the convolution with the kernel turned round."""
  size = kernel.shape[0]
  useful = 1.0
  for length in x.shape[1:3]:
    taps = _taps(length, size, 1, dilation)
    useful *= sum(out.stop - out.start for _, out, _ in taps) / (size * length)
  options = {'dilation': dilation, 'turned': turned}
  library = functools.partial(_library_same_size, **options)
  if useful >= _DENSE and min(kernel.shape[2:]) < _WIDE:
    return library(x, kernel)
  by_taps = functools.partial(_alone, _sum_of_taps, **options)
  return lax.platform_dependent(x, kernel, cpu=by_taps, default=library)


def _library_same_size(x, kernel, dilation, turned):
  if turned:
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  return _library(x, kernel, 1, dilation)


@functools.partial(jax.jit, static_argnames=('dilation', 'turned'))
def _sum_of_taps(x, kernel, dilation, turned):
  size, middle = kernel.shape[0], kernel.shape[0] // 2
  if turned:
    product = functools.partial(_product, turned=True)
    kernel = [[kernel[-1 - i, -1 - j] for j in range(size)] for i in range(size)]
  else:
    product = _product
    kernel = [[kernel[i, j] for j in range(size)] for i in range(size)]
  y = product(x, kernel[middle][middle])
  for i, y_rows, x_rows in _taps(x.shape[1], size, 1, dilation):
    for j, y_cols, x_cols in _taps(x.shape[2], size, 1, dilation):
      if (i, j) != (middle, middle):
        part = product(x[:, x_rows, x_cols], kernel[i][j])
        y = y.at[:, y_rows, y_cols].add(part)
  return y


def _alone(function, *args, **kwargs):
  with set_xla_metadata(inlineable='false'):
    return function(*args, **kwargs)


@jax.jit
def _channels_first(x):
  x = jnp.moveaxis(x, -1, 0)
  return with_layout_constraint(x, Layout((0, 1, 2, 3)))


def _filter_gradient(x, dy, kernel_shape, stride, dilation):
  run = functools.partial(_filter_gradient_, kernel_shape=kernel_shape, stride=stride, dilation=dilation)
  return lax.platform_dependent(x, dy, cpu=functools.partial(_alone, run), default=run)


@functools.partial(jax.jit, static_argnames=('kernel_shape','stride','dilation'))
def _filter_gradient_(x, dy, kernel_shape, stride, dilation):
  """Gradient of the kernel: for each tap, shifted input times dy."""
  size, _, channels, features = kernel_shape
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  product = functools.partial(
    lax.dot_general,
    dimension_numbers=(((1, 2, 3), (0, 1, 2)), ((), ())),
    precision=_precision(dy),
    preferred_element_type=dtype,
  )

  def first(x):
    return lax.platform_dependent(
      x, cpu=functools.partial(_alone, _channels_first), default=_channels_first
    )

  if size == 1 and channels < features:
    return product(first(x[:, ::stride, ::stride]), dy)[None, None]
  dy = first(dy)
  rows = {t[0]: t[1:] for t in _taps(x.shape[1], size, stride, dilation)}
  cols = {t[0]: t[1:] for t in _taps(x.shape[2], size, stride, dilation)}
  parts = []
  if size > 1 and channels <= _ROW_CHANNELS:
    pad = dilation * (size // 2)
    padded = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
    span = (dy.shape[3] - 1) * stride + 1
    for i in range(size):
      if i not in rows:
        parts.append(jnp.zeros((features, size * channels), dtype))
        continue
      y_rows, x_rows = rows[i]
      taps = [
        padded[:, x_rows, j * dilation : j * dilation + span : stride]
        for j in range(size)
      ]
      parts.append(product(dy[:, :, y_rows], jnp.concatenate(taps, axis=-1)))
    gradient = jnp.stack(parts).reshape(size, features, size, channels)
    return gradient.transpose(0, 2, 3, 1)
  for i in range(size):
    for j in range(size):
      if i not in rows or j not in cols:
        parts.append(jnp.zeros((features, channels), dtype))
        continue
      (y_rows, x_rows), (y_cols, x_cols) = rows[i], cols[j]
      parts.append(product(dy[:, :, y_rows, y_cols], x[:, x_rows, x_cols]))
  gradient = jnp.stack(parts).reshape(size, size, features, channels)
  return gradient.swapaxes(2, 3)
