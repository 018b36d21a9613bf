"""Convolution and pooling, with PyTorch's numbers.

Every layer is NHWC. Values follow PyTorch's conventions wherever the two
frameworks differ (symmetric padding, unbiased running variance), because the
weights that people have come from there.

Images of different sizes may share a batch, each in its top left corner. Their
`extent`, rows and columns [b, 2], then goes with the features: what lies
outside is taken as zero by whatever looks further than a pixel, so that each
image gets the features that it has alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.models.convolution.atrous import library_conv
from emanet_jax.models.convolution.conv2d import conv2d
from emanet_jax.models.convolution.grouped import grouped_conv2d
from emanet_jax.models.norm import BatchNorm, plain_batch_norm

# Kaiming's normal initialisation by fan-out: the authors' choice for the
# backbone and for the EM attention unit.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# What a PyTorch convolution starts from when nobody says otherwise: uniform in
# ±1/sqrt(fan_in). The authors leave the other convolutions of the head there.
torch_default = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

# Jitted: see `conv2d`.
relu = jax.jit(nn.relu)


def torch_default_bias(fan_in: int) -> nn.initializers.Initializer:
  """PyTorch's default bias initialisation: uniform in ±1/sqrt(fan_in)."""

  def init(key, shape, dtype=jnp.float32):
    bound = 1 / np.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def inside(
  extent: Int[Array, 'b 2'], size: Sequence[int]
) -> Bool[Array, 'b h w']:
  """Which pixels of a batch of height and width `size` are of the images."""
  rows = jnp.arange(size[0])[:, None] < extent[:, 0, None, None]
  return rows & (jnp.arange(size[1]) < extent[:, 1, None, None])


def halve(extent: Int[Array, 'b 2'] | None) -> Int[Array, 'b 2'] | None:
  """The extent after a convolution or pooling of stride 2."""
  return None if extent is None else (extent + 1) // 2


def keep_inside(
  x: Float[Array, 'b h w c'],
  extent: Int[Array, 'b 2'] | None,
  outside: float = 0.0,
) -> Float[Array, 'b h w c']:
  """Sets what lies outside the images; without an extent all is inside."""
  if extent is None:
    return x
  return jnp.where(inside(extent, x.shape[1:3])[..., None], x, outside)


def layer_norm(
  name: str, x: Float[Array, 'b h w c'], epsilon: float = 1e-6
) -> Float[Array, 'b h w c']:
  """Each pixel's channels normalised; to be called in a compact method."""
  norm = nn.LayerNorm(
    epsilon, dtype=x.dtype, use_fast_variance=False, name=name
  )
  return norm(x)


class Conv(nn.Module):
  """`conv2d` with its parameters.

  They are the kernel [k, k, c / groups, features] and maybe a bias. There is a
  group for each `features / groups` of the output and `c / groups` of x. The
  bias starts as PyTorch's default unless bias_init says otherwise.
  """

  features: int
  kernel_size: int = 1
  stride: int = 1
  dilation: int = 1
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = kaiming_fan_out
  bias_init: nn.initializers.Initializer | None = None
  groups: int = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], extent: Int[Array, 'b 2'] | None = None
  ) -> Float[Array, 'b ho wo features']:
    if self.kernel_size > 1:
      x = keep_inside(x, extent)
    size, channels = self.kernel_size, x.shape[-1] // self.groups
    kernel = self.param(
      'kernel', self.kernel_init, (size, size, channels, self.features)
    )
    y = self.convolve(x, kernel)
    if self.use_bias:
      init = self.bias_init or torch_default_bias(size * size * channels)
      y = y + self.param('bias', init, (self.features,)).astype(y.dtype)
    return y

  def convolve(
    self, x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k _ features']
  ) -> Float[Array, 'b ho wo features']:
    """What `like_flax` replaces."""
    conv = conv2d if self.groups == 1 else grouped_conv2d
    return conv(x, kernel, stride=self.stride, dilation=self.dilation)


def like_flax(
  call: Callable,
  args: tuple[Any, ...],
  kwargs: dict[str, Any],
  context: nn.module.InterceptorContext,
) -> Any:
  """Has layers compute as flax's do, with JAX's own gradients.

  An interceptor for `nn.intercept_methods`: to compare `conv2d` with, and for
  forward-mode differentiation. The precision is ours: float32 stays float32 on
  accelerators.
  """
  layer, method = context.module, context.method_name
  if isinstance(layer, Conv) and method == 'convolve':
    x, kernel = args
    kernel = kernel.astype(x.dtype)
    return library_conv(x, kernel, layer.stride, layer.dilation)
  if isinstance(layer, BatchNorm) and method == 'normalize':
    return plain_batch_norm(*args, layer.epsilon)
  return call(*args, **kwargs)


class ConvNorm(nn.Module):
  """Convolution without bias, batch normalisation and, by choice, ReLU."""

  features: int
  kernel_size: int = 1
  stride: int = 1
  dilation: int = 1
  norm_momentum: float = 0.9
  use_relu: bool = True
  kernel_init: nn.initializers.Initializer = kaiming_fan_out
  norm_scale_init: nn.initializers.Initializer = nn.initializers.ones
  groups: int = 1

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b ho wo features']:
    x = Conv(
      self.features,
      self.kernel_size,
      self.stride,
      self.dilation,
      kernel_init=self.kernel_init,
      groups=self.groups,
      name='conv',
    )(x, extent)
    x = BatchNorm(
      self.norm_momentum, scale_init=self.norm_scale_init, name='norm'
    )(x, train=train)
    return relu(x) if self.use_relu else x


class SeparableConvNorm(nn.Module):
  """A depthwise convolution, then 1×1; each with normalisation and ReLU."""

  features: int
  kernel_size: int = 3
  dilation: int = 1
  norm_momentum: float = 0.9
  kernel_init: nn.initializers.Initializer = kaiming_fan_out

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w features']:
    options = {
      'norm_momentum': self.norm_momentum,
      'kernel_init': self.kernel_init,
    }
    x = ConvNorm(
      x.shape[-1],
      self.kernel_size,
      dilation=self.dilation,
      groups=x.shape[-1],
      **options,
      name='depthwise',
    )(x, train=train, extent=extent)
    return ConvNorm(self.features, **options, name='pointwise')(x, train=train)


def max_pool(
  x: Float[Array, 'b h w c'], extent: Int[Array, 'b 2'] | None = None
) -> Float[Array, 'b ho wo c']:
  """3×3 maximum with stride 2 and padding 1, first over rows, then columns.

  As maxima of strided slices its gradient is a few selections instead of the
  slow scatter of `reduce_window`. Outside of an extent there are zeros.
  """
  x = keep_inside(x, extent, -jnp.inf)
  for axis in (1, 2):
    size = (x.shape[axis] - 1) // 2 + 1
    pads = [(0, 0)] * 4
    pads[axis] = (1, 1)
    padded = jnp.pad(x, pads, constant_values=-jnp.inf)
    taps = [
      lax.slice_in_dim(padded, i, i + 2 * size - 1, stride=2, axis=axis)
      for i in range(3)
    ]
    x = functools.reduce(jnp.maximum, taps)
  # Infinities of windows without a pixel would become NaN in what follows, and
  # NaN times 0 is none.
  return keep_inside(x, halve(extent))
