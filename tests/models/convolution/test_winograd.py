"""Winograd's convolution against the library's, and the autodiff of that."""

import functools

import jax
import numpy as np
import pytest

from emanet_jax.models.convolution import atrous, winograd
from tests.numerics import normal, relative_error

SHAPES = [
  *(((9, 12), d) for d in (1, 2, 3)),
  ((8, 8), 1),
  ((17, 13), 4),
  ((1, 2), 1),
  ((5, 3), 6),  # no tap but the middle ones meets anything
]


def inputs(size, channels=(6, 5)):
  c, f = channels
  x, dy = normal(2, *size, c), normal(2, *size, f, seed=1)
  return x, normal(3, 3, c, f, seed=2), dy


@pytest.mark.parametrize(('size', 'dilation'), SHAPES)
def test_the_convolution_and_its_gradients_are_exact(size, dilation):
  with jax.enable_x64(True):
    x, kernel, dy = inputs(size)

    @jax.jit
    def both(x, kernel, dy):
      y, pullback = jax.vjp(
        lambda x, kernel: atrous.library_conv(x, kernel, 1, dilation), x, kernel
      )
      way = {'dilation': dilation}
      return (y, *pullback(dy)), (
        winograd.convolve(x, kernel, **way, turned=False),
        winograd.convolve(dy, kernel, **way, turned=True),
        winograd.filter_gradient(x, dy, **way),
      )

    expected, got = both(x, kernel, dy)
    for ours, theirs in zip(got, expected, strict=True):
      assert ours.dtype == np.float64
      assert ours.shape == theirs.shape
      assert relative_error(ours, theirs) < 1e-13


@pytest.mark.parametrize('dilation', [1, 2])
def test_float32_is_nearly_as_exact_as_the_direct_sums(dilation):
  x, kernel, dy = inputs((16, 16), (256, 256))

  def library(x, kernel, dy):
    y, pullback = jax.vjp(
      lambda x, kernel: atrous.library_conv(x, kernel, 1, dilation), x, kernel
    )
    return y, *pullback(dy)

  def ours(x, kernel, dy):
    return (
      winograd.convolve(x, kernel, dilation=dilation, turned=False),
      winograd.convolve(dy, kernel, dilation=dilation, turned=True),
      winograd.filter_gradient(x, dy, dilation=dilation),
    )

  short = [np.float32(v) for v in (x, kernel, dy)]
  got, direct = jax.jit(ours)(*short), jax.jit(library)(*short)
  with jax.enable_x64(True):
    exact = jax.jit(library)(*(np.float64(v) for v in short))
  for mine, theirs, truth in zip(got, direct, exact, strict=True):
    assert relative_error(theirs, truth) > 0
    assert relative_error(mine, truth) < 2.5 * relative_error(theirs, truth)


def test_it_pays_where_it_multiplies_less():
  def pays(size, channels=256, dilation=1, kernel=3, dtype=np.float32, batch=1):
    x = np.zeros((batch, size, size, channels), dtype)
    return winograd.pays(x, (kernel, kernel, channels, 256), dilation)

  assert pays(33)
  assert pays(17, batch=2)
  assert not pays(17)  # few tiles for the kernel's transform
  assert pays(33, dilation=2)
  assert not pays(33, dilation=8)  # tiles of mostly padding
  assert not pays(33, channels=128)
  assert not pays(33, kernel=1)
  assert not pays(33, kernel=7)
  assert not pays(33, dtype=jax.numpy.bfloat16)


def test_one_column_of_transformed_kernels_is_there_at_a_time():
  """All are 16/9 of the kernel; its gradient's products 12/9, rows summed."""
  x, kernel = np.zeros((1, 8, 8, 512), 'f'), np.zeros((3, 3, 512, 512), 'f')

  def planned(function, *inputs):
    program = jax.jit(function).lower(*inputs).compile()
    return program.memory_analysis().temp_size_in_bytes / kernel.nbytes

  convolve = functools.partial(winograd.convolve, dilation=1, turned=True)
  assert planned(convolve, x, kernel) < 1
  gradient = functools.partial(winograd.filter_gradient, dilation=1)
  assert planned(gradient, x, x) < 1.5
