"""Weights of attention that heads sow are those that they sum values with."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from emanet_jax.models.attention.non_local import NonLocal
from emanet_jax.models.heads import ocr
from emanet_jax.models.heads.cc import CrissCross
from emanet_jax.models.outputs import ATTENTION
from tests.models.heads.attention import products

SHAPE = (2, 4, 5, 6)
N = SHAPE[1] * SHAPE[2]


@pytest.fixture(scope='module')
def x():
  return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def run(module, x, **options):
  """Variables drawn by NumPy, the output and all that was sown."""
  abstract = jax.eval_shape(
    functools.partial(module.init, train=False), jax.random.key(0), x
  )
  assert ATTENTION not in abstract
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda leaf: np.float32(
      rng.uniform(*((-0.4, 0.4) if leaf.ndim == 4 else (0.1, 0.5)), leaf.shape)
    ),
    abstract,
  )
  apply = jax.jit(
    functools.partial(
      module.apply, train=False, mutable=[ATTENTION, 'intermediates'], **options
    )
  )
  return variables, *apply(variables, x)


def convolved(x, params):
  """A 1×1 convolution, positions in one axis."""
  y = x.reshape(len(x), N, -1) @ params['kernel'][0, 0]
  return y + params.get('bias', 0)


def normalized(y, params, stats):
  scale = params['scale'] / np.sqrt(stats['var'] + 1e-5)
  return (y - stats['mean']) * scale + params['bias']


def softmax(x, axis=-1):
  e = np.exp(x - x.max(axis, keepdims=True))
  return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize('pairwise', ['softmax', 'dot'])
def test_nonlocal(x, pairwise):
  variables, y, sown = run(NonLocal(3, pairwise, True, 0.9), x)
  params = variables['params']
  theta, phi, g = (convolved(x, params[k]) for k in ('theta', 'phi', 'g'))
  (w,) = products(sown).values()
  affinity = theta @ phi.swapaxes(1, 2)
  expected = affinity / N
  if pairwise == 'softmax':
    expected = softmax(affinity / np.sqrt(3))
  np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-6)
  out = normalized(
    convolved(w @ g, params['conv_out']['conv']),
    params['conv_out']['norm'],
    variables['batch_stats']['conv_out']['norm'],
  )
  np.testing.assert_allclose(
    y.reshape(2, N, -1), x.reshape(2, N, -1) + out, rtol=1e-4, atol=1e-4
  )


class _Twice(nn.Module):
  @nn.compact
  def __call__(self, x, *, train):
    block = CrissCross(3, name='block')
    return block(block(x, train=train), train=train)


def test_criss_cross_applied_twice(x):
  variables, y, sown = run(_Twice(), x)
  params = variables['params']['block']
  rows, cols = np.divmod(np.arange(N), SHAPE[2])
  crossing = (rows[:, None] == rows) | (cols[:, None] == cols)
  total, now = np.eye(N), x.reshape(2, N, -1)
  for _ in range(2):
    query, key = (convolved(now, params[k]) for k in ('query', 'key'))
    affinity = query @ key.swapaxes(1, 2)
    w = softmax(np.where(crossing, affinity, -np.inf))
    now = now + params['gamma'] * (w @ convolved(now, params['value']))
    total = w @ total
  np.testing.assert_allclose(y.reshape(2, N, -1), now, rtol=1e-4, atol=1e-4)
  ((name, got),) = products(sown).items()
  assert name == 'attention to rows and columns'
  np.testing.assert_allclose(got, total, rtol=1e-4, atol=1e-6)
  first, last = sown[ATTENTION]['block'][name]
  for (factor,) in (first, last):
    assert not np.asarray(factor)[:, ~crossing].any()
  assert (got[:, ~crossing] > 0).all()  # all are reached in two


def test_ocr(x):
  head = ocr.create(
    *(3, 0.9), channels=4, inner_channels=3, region_channels=4, dropout_rate=0.0
  )
  names = 'conv_in', 'region_classifier', 'value', 'attended'
  variables, _, sown = run(
    head, (x, x), capture_intermediates=lambda m, _: m.name in names
  )
  features, logits, value, attended = (
    np.asarray(sown['intermediates'][name]['__call__'][0]) for name in names
  )
  shares, gathered = sown[ATTENTION]['attention through regions'][0]
  assert (shares.shape, gathered.shape) == ((2, N, 3), (2, 3, N))
  expected = softmax(logits.reshape(2, N, 3), axis=1).swapaxes(1, 2)
  np.testing.assert_allclose(gathered, expected, rtol=1e-4, atol=1e-6)
  # Values of regions are those of their mean features.
  params, stats = variables['params'], variables['batch_stats']
  regions = np.asarray(gathered) @ features.reshape(2, N, -1)

  def conv_norm(y, name):
    y = normalized(
      y @ params[name]['conv']['kernel'][0, 0],
      params[name]['norm'],
      stats[name]['norm'],
    )
    return np.maximum(y, 0)

  np.testing.assert_allclose(
    value[:, :, 0], conv_norm(regions, 'value'), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    attended.reshape(2, N, -1),
    conv_norm(np.asarray(shares) @ value[:, :, 0], 'attended'),
    rtol=1e-4,
    atol=1e-5,
  )
