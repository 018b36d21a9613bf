"""Random inputs, errors, and functions with their gradients."""

import jax
import numpy as np
from jax import lax


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def relative_error(got, expected):
  expected = np.float64(expected)
  return np.abs(np.float64(got) - expected).max() / np.abs(expected).max()


def with_gradients(function, inputs, seed=9):
  """The value, and its vector-Jacobian products with a random cotangent."""
  value, vjp = jax.vjp(function, *inputs)
  return value, *vjp(normal(*value.shape, seed=seed).astype(value.dtype))


def plain_conv(x, kernel, stride, dilation):
  """XLA's convolution, padded as PyTorch's is."""
  pad = dilation * (kernel.shape[0] // 2)
  groups = x.shape[-1] // kernel.shape[2]
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad), (pad, pad)],
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )
