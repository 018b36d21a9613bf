"""Layers against autodiff of their plain forms and slow NumPy twins."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from emanet_jax.models import layers, norm
from emanet_jax.models.resize import resize_bilinear
from tests.numerics import normal, relative_error, with_gradients


def plain_batch_norm(x, scale, bias):
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def test_batch_norm_and_its_closed_gradient():
  inputs = (normal(3, 4, 5, 6) * 2 + 1, normal(6, seed=1), normal(6, seed=2))
  with jax.enable_x64(True):
    got, expected = (
      jax.jit(functools.partial(with_gradients, function))(inputs)
      for function in (
        lambda *inputs: norm.batch_norm(*inputs, 1e-5)[0],
        plain_batch_norm,
      )
    )
  for ours, theirs in zip(got, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_batch_norm_survives_a_large_mean():
  x = np.float32(normal(3, 8, 8, 4) * 0.1 + 1000)
  y, mean, var = norm.batch_norm(x, np.ones(4, 'f'), np.zeros(4, 'f'), 1e-5)
  np.testing.assert_allclose(mean, np.float64(x).mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(var, np.float64(x).var((0, 1, 2)), rtol=1e-3)
  np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, rtol=1e-2)


def test_batch_norm_of_bfloat16_has_float32_statistics():
  x = jnp.asarray(normal(3, 8, 8, 4) + 5, jnp.bfloat16)
  wide = x.astype(jnp.float32)
  ones, zeros = np.ones(4, 'f'), np.zeros(4, 'f')
  y, mean, var = norm.batch_norm(x, ones, zeros, 1e-5)
  exact, exact_mean, exact_var = norm.batch_norm(wide, ones, zeros, 1e-5)
  assert (y.dtype, mean.dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_allclose(mean, exact_mean, rtol=1e-6)
  np.testing.assert_allclose(var, exact_var, rtol=1e-5)
  np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=8e-3)


def test_running_statistics_are_pytorchs():
  module = layers.BatchNorm(momentum=0.7, epsilon=1e-3)
  x = np.float32(normal(1, 1, 3, 2) * 3 + 1)  # three samples: n / (n - 1) = 1.5
  variables = module.init(jax.random.key(0), x, train=True)
  first = variables['batch_stats']
  np.testing.assert_array_equal(first['mean'], 0)  # initialising counts not
  np.testing.assert_array_equal(first['var'], 1)
  mean, var = np.zeros(2), np.ones(2)
  for step in range(3):
    batch = x * (step + 1)
    _, updated = module.apply(
      variables, batch, train=True, mutable=['batch_stats']
    )
    variables = {**variables, **updated}
    mean = 0.7 * mean + 0.3 * batch.mean((0, 1, 2))
    var = 0.7 * var + 0.3 * batch.var((0, 1, 2), ddof=1)
  got = variables['batch_stats']
  np.testing.assert_allclose(got['mean'], mean, rtol=1e-5)
  np.testing.assert_allclose(got['var'], var, rtol=1e-5)


def test_evaluation_normalises_by_the_running_statistics():
  module = layers.BatchNorm(momentum=0.7, epsilon=1e-3)
  x, scale, bias = normal(2, 3, 3, 2), np.array([2.0, -1]), np.array([0.5, 3])
  mean, var = np.array([1.0, -2]), np.array([4.0, 0.25])
  variables = {
    'params': {'scale': scale, 'bias': bias},
    'batch_stats': {'mean': mean, 'var': var},
  }
  expected = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
  variables = jax.tree.map(jnp.float32, variables)
  y = module.apply(variables, np.float32(x), train=False)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def plain_max_pool(x):
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  window = ((1, 3, 3, 1), (1, 2, 2, 1))
  return lax.reduce_window(x, -jnp.inf, lax.max, *window, padding)


@pytest.mark.parametrize(('height', 'width'), [(1, 6), (2, 3), (7, 8), (9, 9)])
def test_max_pool_and_its_gradient(height, width):
  # Distinct values, so that each window has one maximum; all negative, so
  # that padding by zeros would show.
  count = 2 * height * width * 3
  values = -1 - np.random.default_rng(0).permutation(count)
  x = np.float32(values.reshape(2, height, width, 3))

  @jax.jit
  def both(x):
    pools = (layers.max_pool, plain_max_pool)
    return [with_gradients(pool, (x,)) for pool in pools]

  got, expected = both(x)
  np.testing.assert_array_equal(got[0], expected[0])
  np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)


def test_max_pool_is_finite_outside_of_an_image():
  """A window without a pixel of it has no maximum."""
  x = np.random.default_rng(0).normal(size=(2, 17, 21, 3)).astype(np.float32)
  extent = np.array([[5, 21], [17, 6]], np.int32)
  got = jax.jit(layers.max_pool)(x, extent)
  assert np.isfinite(got).all()
  for i, (rows, cols) in enumerate(extent):
    alone = plain_max_pool(x[i : i + 1, :rows, :cols])
    height, width = alone.shape[1:3]
    np.testing.assert_array_equal(got[i : i + 1, :height, :width], alone)


def slow_resize(x, size, align_corners):
  """PyTorch's bilinear interpolation, pixel by pixel."""
  (height, width), out = x.shape[1:3], np.zeros((len(x), *size, x.shape[3]))

  def source(i, length, new):
    if align_corners:
      return i * (length - 1) / (new - 1) if new > 1 else 0.0
    return min(max((i + 0.5) * length / new - 0.5, 0.0), length - 1)

  for i in range(size[0]):
    for j in range(size[1]):
      row, col = source(i, height, size[0]), source(j, width, size[1])
      for r in (int(row), int(row) + 1):
        for c in (int(col), int(col) + 1):
          weight = max(1 - abs(row - r), 0) * max(1 - abs(col - c), 0)
          out[:, i, j] += weight * x[:, min(r, height - 1), min(c, width - 1)]
  return out


@pytest.mark.parametrize('align_corners', [True, False])
@pytest.mark.parametrize(
  ('size', 'new'),
  [((5, 7), (9, 13)), ((9, 13), (5, 6)), ((1, 3), (4, 1)), ((4, 4), (11, 3))],
)
def test_resize_equals_the_slow_twin(size, new, align_corners):
  x = normal(2, *size, 3)
  got = resize_bilinear(np.float32(x), new, align_corners=align_corners)
  expected = slow_resize(x, new, align_corners)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('align_corners', [True, False])
def test_resize_to_the_same_size_is_the_identity(align_corners):
  x = np.float32(normal(2, 6, 5, 3))
  got = resize_bilinear(x, (6, 5), align_corners=align_corners)
  np.testing.assert_array_equal(got, x)


def test_aligned_corners_keep_their_values():
  x = np.float32(normal(1, 65, 65, 2))
  got = resize_bilinear(x, (513, 513), align_corners=True)
  corners = np.s_[:, [0, 0, -1, -1], [0, -1, 0, -1]]
  np.testing.assert_allclose(got[corners], x[corners], atol=1e-6)


@pytest.mark.parametrize('align_corners', [True, False])
def test_resize_of_bfloat16(align_corners):
  x = jnp.asarray(normal(1, 5, 7, 3), jnp.bfloat16)
  got = resize_bilinear(x, (9, 13), align_corners=align_corners)
  expected = slow_resize(np.float64(x), (9, 13), align_corners)
  assert got.dtype == jnp.bfloat16
  assert relative_error(got.astype(jnp.float32), expected) < 0.02


@pytest.mark.parametrize(
  ('size', 'stride', 'dilation'), [(1, 1, 1), (1, 2, 1), (3, 2, 1), (3, 1, 4)]
)
def test_convolutions_like_flax_are_flaxs(size, stride, dilation):
  x = np.float32(normal(2, 9, 12, 5))
  ours = layers.Conv(6, size, stride, dilation, use_bias=True)
  theirs = nn.Conv(
    6,
    (size, size),
    stride,
    dilation * (size // 2),
    kernel_dilation=dilation,
    precision=lax.Precision.HIGHEST,
  )
  kernel = np.float32(normal(size, size, 5, 6, seed=1))
  bias = np.float32(normal(6, seed=2))

  def run(conv):
    def apply(x, kernel, bias):
      with nn.intercept_methods(layers.like_flax):
        return conv.apply({'params': {'kernel': kernel, 'bias': bias}}, x)

    inputs = x, kernel, bias
    return jax.jit(lambda *inputs: with_gradients(apply, inputs))(*inputs)

  for got, expected in zip(run(ours), run(theirs), strict=True):
    np.testing.assert_array_equal(got, expected)


def test_batch_norms_gradient_keeps_only_its_input():
  """XLA would keep what the forward pass computes of it, too: three a layer."""
  layers = 8
  x = jnp.zeros((2, 50, 50, 256))
  scale, bias = jnp.ones(256), jnp.zeros(256)

  def stack(x):
    for _ in range(layers):
      y, *_ = norm.batch_norm(x, scale, bias, 1e-5)
      x = jnp.sin(y)
    return x.sum()

  planned = jax.jit(jax.grad(stack)).lower(x).compile().memory_analysis()
  assert planned.temp_size_in_bytes < 1.5 * layers * x.nbytes
