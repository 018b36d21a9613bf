"""Random inputs, errors, and functions with their gradients."""

import jax
import numpy as np


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def relative_error(got, expected):
  expected = np.float64(expected)
  return np.abs(np.float64(got) - expected).max() / np.abs(expected).max()


def with_gradients(function, inputs, seed=9):
  """The value, and its vector-Jacobian products with a random cotangent."""
  value, vjp = jax.vjp(function, *inputs)
  return value, *vjp(normal(*value.shape, seed=seed).astype(value.dtype))
