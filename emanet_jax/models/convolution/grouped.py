"""Convolution in groups of channels, with its gradients.

Depthwise ones have a file of their own. Of others, CPUs take neighbouring
groups together to blocks of at least 32 channels, each an ordinary convolution
whose kernel has zeros between the groups: what is multiplied in vain costs less
than XLA's own way.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution import depthwise
from emanet_jax.models.convolution.atrous import library_conv
from emanet_jax.models.convolution.conv2d import conv2d
from emanet_jax.models.convolution.filter_gradient import library_gradients
from emanet_jax.models.convolution.platforms import by_platform
from emanet_jax.models.convolution.reverse_only import reverse_only

_CHANNELS = 32  # of a block, at least


@functools.partial(jax.jit, static_argnames=('stride', 'dilation'))
def grouped_conv2d(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k k _ f'],
  *,
  stride: int = 1,
  dilation: int = 1,
) -> Float[Array, 'b ho wo f']:
  """As `conv2d`, of a kernel [k, k, c / groups, f]."""
  x, kernel = reverse_only(x), reverse_only(kernel)
  if kernel.shape[2] == 1 and kernel.shape[3] == x.shape[-1]:
    return depthwise.convolve(x, kernel, stride, dilation)
  return _convolve(x, kernel, stride, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride, dilation):
  options = {'stride': stride, 'dilation': dilation}
  return by_platform(_in_blocks, library_conv, **options)(
    x, kernel.astype(x.dtype)
  )


def _forward(x, kernel, stride, dilation):
  return _convolve(x, kernel, stride, dilation), (x, kernel)


def _backward(stride, dilation, residuals, dy):
  options = {'stride': stride, 'dilation': dilation}
  gradients = by_platform(_block_gradients, library_gradients, **options)
  return gradients(*residuals, dy)


_convolve.defvjp(_forward, _backward)


def _block_gradients(x, kernel, dy, stride, dilation):
  convolve = functools.partial(_in_blocks, stride=stride, dilation=dilation)
  return jax.vjp(convolve, x, kernel)[1](dy)


def _in_blocks(x, kernel, stride, dilation):
  """One block after another, so that only one is compiled."""
  *batch_and_size, channels = x.shape
  size, _, each, features = kernel.shape
  groups = channels // each
  joined = next(  # groups of a block
    n
    for n in range(1, groups + 1)
    if groups % n == 0 and (n * each >= _CHANNELS or n == groups)
  )
  blocks = groups // joined
  kernel = kernel.reshape(size, size, each, blocks, joined, -1)
  kernel = jnp.einsum('hwcbgf,gk->bhwkcgf', kernel, jnp.eye(joined))
  kernel = kernel.reshape(blocks, size, size, joined * each, features // blocks)
  x = x.reshape(*batch_and_size, blocks, joined * each)
  convolve = functools.partial(conv2d, stride=stride, dilation=dilation)
  y = lax.map(lambda block: convolve(*block), (jnp.moveaxis(x, 3, 0), kernel))
  y = jnp.moveaxis(y, 0, 3)
  return y.reshape(*y.shape[:3], features)
