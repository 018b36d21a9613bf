"""Atrous convolution, with its gradients.

The choices made here are measured. On CPUs, time of what is taken over that of
XLA's convolution or its derivative ('-': that is taken); two cores, float32,
two images, each layer alone, medians of nine interleaved turns (jax 0.10.2):

    features, kernel, dilation    forward   input gradient   filter gradient
    129², 3×3,   64 →  64,  1        -             -               1.04
     33², 3×3,  128 → 128,  1        -             -               1.13
     33², 3×3,  256 → 256,  1       0.69          0.63             0.64
     33², 3×3,  256 → 256,  2       0.86          0.80             0.70
     33², 3×3,  512 → 512,  2       0.69          0.61             0.52
     33², 3×3,  512 → 512,  4       0.91          0.86             0.64
     65², 3×3,  512 → 512,  4       0.72          0.70             0.52
     33², 3×3,  512 → 512,  8       0.79          0.71             0.56
     33², 3×3,  512 → 512, 16       0.45          0.46             0.35
     33², 3×3, 2048 → 512,  1       0.58          0.47             0.43
     33², 1×1, 1024 → 256           0.80          0.78             0.37
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution import winograd
from emanet_jax.models.convolution.atrous import (
  library_conv_or_patches,
  precision,
  reached,
  taps,
)
from emanet_jax.models.convolution.filter_gradient import filter_gradient
from emanet_jax.models.convolution.platforms import by_platform
from emanet_jax.models.convolution.reverse_only import reverse_only

# CPUs convolve tap by tap where less than this share of a convolution's
# products is with other than padding, or from so many channels on.
_DENSE = 0.9
_WIDE = 512


@functools.partial(jax.jit, static_argnames=('stride', 'dilation'))
def conv2d(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  *,
  stride: int = 1,
  dilation: int = 1,
) -> Float[Array, 'b ho wo f']:
  """Atrous convolution, padded by `dilation * (k - 1) / 2` on every side.

  Jitted, so that equal layers are traced, differentiated and lowered once.

  Args:
    x: Input, in the compute dtype.
    kernel: Odd square kernel, usually float32; cast to x's dtype for the
      products. Its gradient comes in its own dtype; on accelerators that of a
      bfloat16 input was rounded to bfloat16 before it was summed over devices.
    stride: Step between outputs, in pixels.
    dilation: Distance between taps, in pixels.

  Returns:
    Convolved features in x's dtype; ho = ceil(h / stride).

  Raises:
    TypeError: Under forward-mode differentiation, which it has not.
  """
  return _conv(reverse_only(x), reverse_only(kernel), stride, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x, kernel, stride, dilation):
  kernel = kernel.astype(x.dtype)
  if stride == 1:
    return _same_size(x, kernel, dilation, turned=False)
  return _strided(x, kernel, stride, dilation)


def _conv_forward(x, kernel, stride, dilation):
  return _conv(x, kernel, stride, dilation), (x, kernel)


def _conv_backward(stride, dilation, residuals, dy):
  gradients = by_platform(_gradients, stride=stride, dilation=dilation)
  return gradients(*residuals, dy)


@functools.partial(jax.jit, static_argnames=('stride', 'dilation'))
def _gradients(x, kernel, dy, stride, dilation):
  """Of the input and the kernel, on CPUs in one program.

  An optimizer may put a new kernel in the old one's place once its gradient is
  there. Were the input's gradient computed apart, it might still need the old
  one, and XLA would copy all kernels as a training step begins.
  """
  weights = kernel.astype(x.dtype)
  if stride == 1:
    dx = _same_size(dy, weights, dilation, turned=True)
  else:
    (dx,) = jax.linear_transpose(
      lambda x: _strided(x, weights, stride, dilation), x
    )(dy)
  dkernel = filter_gradient(x, dy, kernel.shape[0], stride, dilation)
  return dx, dkernel.astype(kernel.dtype)


_conv.defvjp(_conv_forward, _conv_backward)


def _product(x, matrix, turned=False):
  indices = 'bhwf,cf->bhwc' if turned else 'bhwc,cf->bhwf'
  return jnp.einsum(indices, x, matrix, precision=precision(x))


def _strided(x, kernel, stride, dilation):
  if kernel.shape[0] == 1:
    return _product(x[:, ::stride, ::stride], kernel[0, 0])
  return library_conv_or_patches(x, kernel, stride, dilation)


def _same_size(x, kernel, dilation, turned):
  """Stride 1; `turned`: with the kernel turned round, as its gradient takes it.

  A kernel turned round has its channels exchanged as well.
  """
  size, options = kernel.shape[0], {'dilation': dilation, 'turned': turned}
  if size == 1:
    return _product(x, kernel[0, 0], turned)
  if not all(isinstance(n, int) for n in x.shape[1:3]):
    return _whole(x, kernel, **options)  # exported for any size
  if winograd.pays(x, kernel.shape, dilation):
    return by_platform(_winograd, _whole, **options)(x, kernel)
  useful = math.prod(
    reached(n, size, dilation) / (size * n) for n in x.shape[1:3]
  )
  if useful >= _DENSE and min(kernel.shape[2:]) < _WIDE:
    return _whole(x, kernel, **options)
  return by_platform(_tap_by_tap, _whole, **options)(x, kernel)


def _whole(x, kernel, dilation, turned):
  if turned:
    kernel = kernel[::-1, ::-1].swapaxes(2, 3)
  return library_conv_or_patches(x, kernel, 1, dilation)


_winograd = jax.jit(winograd.convolve, static_argnames=('dilation', 'turned'))


@functools.partial(jax.jit, static_argnames=('dilation', 'turned'))
def _tap_by_tap(x, kernel, dilation, turned):
  """The convolution as a sum over the taps, without the padding."""
  size, middle = kernel.shape[0], kernel.shape[0] // 2
  rows, cols = (taps(n, size, 1, dilation) for n in x.shape[1:3])

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
