"""Every layer that the package can choose runs on a CPU, in every dtype."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.models import layers
from emanet_jax.models.convolution import conv2d, filter_gradient
from emanet_jax.models.segmenter import CONVOLUTIONS
from tests.numerics import normal, plain_conv, relative_error

WIDE = filter_gradient._ROW_CHANNELS + 1

CHOICES = [
  (size, channels, features, stride, dilation)
  for size in (1, 3, 7)
  for channels, features in ((5, 6), (6, 5), (6, 6), (WIDE, 3))
  for stride in (1, 2)
  for dilation in (1, 2, 4)
  if (size == 1) <= (dilation == 1)
  if (size == 7) <= (channels < WIDE and dilation == 1)
]


# One of each way to a filter's gradient. float32 has its own test above.
FEW = [c for c in CHOICES if c[0] == 1 or (c[1:3] == (5, 6) and c[4] < 4)]
FEW = [c for c in FEW if c[0] < 7 and c[1] < WIDE] + [(3, WIDE, 3, 1, 1)]


EXACT = {'float32': 1e-5, 'bfloat16': 1e-2, 'float64': 1e-13}


@pytest.mark.parametrize('convolution', CONVOLUTIONS)
@pytest.mark.parametrize(
  ('dtype', 'tolerance', 'choices'),
  [
    ('bfloat16', 1e-2, FEW),
    *(
      pytest.param(dtype, tolerance, CHOICES, marks=pytest.mark.slow)
      for dtype, tolerance in EXACT.items()
    ),
  ],
  ids=['few-bfloat16', 'float32', 'bfloat16', 'float64'],
)
def test_every_choice_runs_on_a_cpu(dtype, tolerance, choices, convolution):
  """All sizes, strides, dilations and channels, forward and both gradients.

  XLA refuses some products of bfloat16 only when it runs them, compiled.
  """
  with jax.enable_x64(dtype == 'float64'):
    inputs = []
    for size, channels, features, stride, dilation in choices:
      x = jnp.asarray(normal(1, 7, 9, channels), dtype)
      kernel = normal(size, size, channels, features, seed=1)
      kernel = jnp.asarray(jnp.asarray(kernel, dtype), 'float32')
      shape = jax.eval_shape(
        functools.partial(conv2d.conv2d, stride=stride, dilation=dilation),
        *(x, kernel),
      ).shape
      inputs.append((x, kernel, jnp.asarray(normal(*shape, seed=2), dtype)))

    @jax.jit
    def run(inputs):
      found = []
      for choice, (x, kernel, dy) in zip(choices, inputs, strict=True):
        size, _, features, stride, dilation = choice
        layer = layers.Conv(features, size, stride, dilation)
        y, pullback = jax.vjp(
          lambda x, kernel, layer=layer: layer.apply(
            {'params': {'kernel': kernel}}, x
          ),
          *(x, kernel),
        )
        found.append((y, *pullback(dy)))
      return found

    with contextlib.ExitStack() as stack:
      if convolution == 'flax':
        stack.enter_context(nn.intercept_methods(layers.like_flax))
      got = run(inputs)
  assert len(got) == len(choices) > 10
  for choice, outputs, given in zip(choices, got, inputs, strict=True):
    with jax.enable_x64(True):
      x, kernel, dy = (np.asarray(a, np.float64) for a in given)
      y, pullback = jax.vjp(
        lambda x, k, how=choice[3:]: plain_conv(x, k, *how), x, kernel
      )
      expected = y, *pullback(dy)
    assert [a.dtype for a in outputs[:2]] == [dtype, dtype]
    assert outputs[2].dtype == 'float32'
    for ours, theirs in zip(outputs, expected, strict=True):
      error = relative_error(np.asarray(ours, np.float64), theirs)
      assert error < max(tolerance, 1e-7 * (ours.dtype == 'float32')), choice
