"""Depthwise convolution: a filter a channel, with its gradients.

On CPUs it is a sum of shifted products, and the gradient of the filter is
summed row by row; accelerators have their libraries'. XLA's own way on CPUs
walks through single values: it takes 5 to 30 times as long forward, and 70
times in the filter's gradient (two cores, float32, 33² to 129²).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution.atrous import library_conv
from emanet_jax.models.convolution.filter_gradient import library_gradients
from emanet_jax.models.convolution.platforms import by_platform


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k k 1 c'],
  stride: int,
  dilation: int,
) -> Float[Array, 'b ho wo c']:
  """As `conv2d`, each channel by a filter of its own."""
  options = {'stride': stride, 'dilation': dilation}
  return by_platform(_of_taps, library_conv, **options)(
    x, kernel.astype(x.dtype)
  )


def _forward(x, kernel, stride, dilation):
  return convolve(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, residuals, dy):
  options = {'stride': stride, 'dilation': dilation}
  return by_platform(_gradients, library_gradients, **options)(*residuals, dy)


convolve.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnames=('stride', 'dilation'))
def _gradients(x, kernel, dy, stride, dilation):
  """Of the input and the kernel; one program, see `conv2d`."""
  weights = kernel.astype(x.dtype)
  if stride == 1:
    dx = _of_taps(dy, weights[::-1, ::-1], 1, dilation)
  else:
    (dx,) = jax.linear_transpose(
      lambda x: _of_taps(x, weights, stride, dilation), x
    )(dy)
  dkernel = _filter_gradient(x, dy, kernel.shape[0], stride, dilation)
  return dx, dkernel.astype(kernel.dtype)


def _of_taps(x, kernel, stride, dilation):
  size, dtype = kernel.shape[0], x.dtype
  length = [-(-n // stride) for n in x.shape[1:3]]
  x, kernel = (_wide(_padded(x, size, dilation)), _wide(kernel))
  y = 0.0
  for i in range(size):
    for j in range(size):
      rows, cols = (
        slice(t * dilation, t * dilation + (n - 1) * stride + 1, stride)
        for t, n in zip((i, j), length, strict=True)
      )
      y += x[:, rows, cols] * kernel[i, j, 0]
  return y.astype(dtype)


def _filter_gradient(x, dy, size, stride, dilation):
  """Sums row by row, all taps at once, so that a row stays in the cache."""
  span = (dy.shape[2] - 1) * stride + 1
  cols = [slice(j * dilation, j * dilation + span, stride) for j in range(size)]
  x = _padded(x, size, dilation)

  def add_row(i, sums):
    there = _wide(lax.dynamic_slice_in_dim(dy, i, 1, 1))
    rows = [
      _wide(lax.dynamic_slice_in_dim(x, i * stride + t * dilation, 1, 1))
      for t in range(size)
    ]
    products = [row[:, :, col] * there for row in rows for col in cols]
    return [a + b for a, b in zip(sums, products, strict=True)]

  zero = jnp.zeros_like(_wide(dy[:, :1]))
  sums = lax.fori_loop(0, dy.shape[1], add_row, [zero] * size**2)
  gradient = jnp.stack([part.sum((0, 1, 2)) for part in sums])
  return gradient.reshape(size, size, 1, -1)


def _padded(x, size, dilation):
  pad = dilation * (size // 2)
  return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def _wide(x):
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
