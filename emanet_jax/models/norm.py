"""Batch normalisation over the global batch, with PyTorch's statistics."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution.platforms import by_platform
from emanet_jax.models.convolution.reverse_only import reverse_only
from emanet_jax.runtime import sharding


def at_least_float32(x: Float[Array, '...']) -> Float[Array, '...']:
  """Widens bfloat16 to float32, and leaves float32 and float64 as they are.

  Sums, statistics and softmaxes are computed in this dtype. (A float64 network
  serves to compare with a reference beyond rounding.)
  """
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@functools.partial(jax.jit, static_argnames='epsilon')
def batch_norm(
  x: Float[Array, 'b h w c'],
  scale: Float[Array, ' c'],
  bias: Float[Array, ' c'],
  epsilon: float,
) -> tuple[Float[Array, 'b h w c'], Float[Array, ' c'], Float[Array, ' c']]:
  """Normalises by the statistics of the whole batch.

  Under jit with a batch sharded over devices these are the statistics of the
  global batch. The gradient is the closed form; the returned statistics are
  for the running averages and carry none. Jitted: see `conv2d`.

  Args:
    x: Features in the compute dtype.
    scale: Per-channel scale, float32.
    bias: Per-channel offset, float32.
    epsilon: Added to the variance.

  Returns:
    The normalised features in x's dtype, and the batch's mean and biased
    variance, float32.

  Raises:
    TypeError: Under forward-mode differentiation, which it has not.
  """
  return _batch_norm(*map(reverse_only, (x, scale, bias)), epsilon)


def plain_batch_norm(
  x: Float[Array, 'b h w c'],
  scale: Float[Array, ' c'],
  bias: Float[Array, ' c'],
  epsilon: float,
) -> tuple[Float[Array, 'b h w c'], Float[Array, ' c'], Float[Array, ' c']]:
  """The same with JAX's own gradients, forward-mode ones too."""
  y, mean, var, _ = _normalize(x, scale, bias, epsilon)
  return y, mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x, scale, bias, epsilon):
  return plain_batch_norm(x, scale, bias, epsilon)


def _normalize(x, scale, bias, epsilon):
  x32 = at_least_float32(x)
  mean, var = _moments(x32)
  inverse = lax.rsqrt(var + epsilon)
  y = (x32 - mean) * (inverse * scale) + bias
  return y.astype(x.dtype), mean, var, inverse


def _moments(x):
  """Mean and biased variance of each channel, over the global batch.

  Each share of the batch has its own first, about its own mean, so that a large
  mean costs no accuracy; they are exchanged at once and merged (Chan, Golub and
  LeVeque 1979). For a global mean and then a variance about it, devices would
  wait for each other twice.
  """
  shares = sharding.shares_in_use()
  if shares == 1 or x.shape[0] % shares:
    mean = x.mean((0, 1, 2))
    return mean, jnp.square(x - mean).mean((0, 1, 2))
  x = x.reshape(shares, -1, *x.shape[1:])
  means = x.mean((1, 2, 3), keepdims=True)
  variances = jnp.square(x - means).mean((1, 2, 3))
  both = jnp.stack([means.reshape(variances.shape), variances])
  means, variances = sharding.gathered(both)
  mean = means.mean(0)
  return mean, variances.mean(0) + jnp.square(means - mean).mean(0)


def _batch_norm_forward(x, scale, bias, epsilon):
  y, mean, var, inverse = _normalize(x, scale, bias, epsilon)
  return (y, mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(epsilon, residuals, cotangents):
  del epsilon
  return by_platform(_gradients)(*residuals, cotangents[0])


@jax.jit
def _gradients(x, scale, mean, inverse, dy):
  """On CPUs a program of its own, which computes x - mean anew.

  The forward pass stores it for its sums, and XLA would keep it until now: a
  fifth of a training step's memory (ResNet-50, two images of 257²).
  """
  x32, dy = at_least_float32(x), at_least_float32(dy)
  normalized = (x32 - mean) * inverse
  dbias = dy.sum((0, 1, 2))
  dscale = (dy * normalized).sum((0, 1, 2))
  count = x.size // x.shape[-1]
  dx = (scale * inverse) * (dy - (dbias + normalized * dscale) / count)
  return dx.astype(x.dtype), dscale, dbias


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class BatchNorm(nn.Module):
  """Batch normalisation with PyTorch's running statistics.

  The running variance is fed the unbiased estimate (n / (n - 1)), as PyTorch
  does and Flax does not.

  Attributes:
    momentum: Share of the old running value kept per step (Flax's sense):
      PyTorch's momentum m is 1 - m here.
    epsilon: Added to the variance.
    scale_init: Of the scale.
  """

  momentum: float
  epsilon: float = 1e-5
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], *, train: bool
  ) -> Float[Array, 'b h w c']:
    shape = (x.shape[-1],)
    scale = self.param('scale', self.scale_init, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    if not train:
      factor = scale * lax.rsqrt(var.value + self.epsilon)
      y = at_least_float32(x) * factor + (bias - mean.value * factor)
      return y.astype(x.dtype)
    y, batch_mean, batch_var = self.normalize(x, scale, bias)
    if not self.is_initializing():
      count = x.size // x.shape[-1]
      unbiased = batch_var * (count / max(count - 1, 1))
      keep = self.momentum
      mean.value = keep * mean.value + (1 - keep) * batch_mean
      var.value = keep * var.value + (1 - keep) * unbiased
    return y

  def normalize(
    self,
    x: Float[Array, 'b h w c'],
    scale: Float[Array, ' c'],
    bias: Float[Array, ' c'],
  ) -> tuple[Float[Array, 'b h w c'], Float[Array, ' c'], Float[Array, ' c']]:
    """What `layers.like_flax` replaces."""
    return batch_norm(x, scale, bias, self.epsilon)
