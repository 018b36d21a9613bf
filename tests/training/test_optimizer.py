"""The optimizer against torch.optim.SGD's update written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emanet_jax.errors import UserError
from emanet_jax.training.optimizer import create_optimizer, poly_schedule

MOMENTUM, DECAY, BIAS = 0.9, 0.01, 2.0
FROZEN = ('head', 'unit', 'conv_in')


def parameters(seed=0):
  """Two convolutions with bias, one of them frozen, and a normalisation."""
  rng = np.random.default_rng(seed)

  def conv():
    return {
      'kernel': np.float32(rng.normal(size=(1, 1, 3, 4))),
      'bias': np.float32(rng.normal(size=4)),
    }

  norm = {k: np.float32(rng.normal(size=4)) for k in ('scale', 'bias')}
  return {
    'backbone': {'conv_in': conv(), 'norm': norm},
    'head': {'unit': {'conv_in': conv()}, 'conv_in': conv()},
  }


def optimizer(schedule, **options):
  defaults = {
    'momentum': MOMENTUM,
    'weight_decay': DECAY,
    'bias_multiplier': BIAS,
  }
  return create_optimizer(schedule, **{**defaults, **options})


def run(tx, params, gradients):
  update = jax.jit(tx.update)
  state = tx.init(params)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


def torch_sgd(value, gradients, rates, decay, multiplier):
  """torch.optim.SGD with one parameter group's options, in float64."""
  value, velocity = np.float64(value), 0.0
  for gradient, rate in zip(gradients, rates, strict=True):
    velocity = MOMENTUM * velocity + gradient + decay * value
    value = value - multiplier * rate * velocity
  return value


@pytest.mark.parametrize('frozen', [(), (FROZEN,)])
def test_update_is_pytorchs_in_three_groups(frozen):
  params, gradients = parameters(), [parameters(1 + i) for i in range(5)]
  schedule = poly_schedule(0.1, 8, power=0.9, decay_every=0)
  rates = [0.1 * (1 - step / 8) ** 0.9 for step in range(5)]
  got = run(optimizer(schedule, frozen=frozen), params, gradients)

  def expected(path, value, *gradients):
    keys = tuple(k.key for k in path)
    decayed = keys[-1] == 'kernel' and not (frozen and keys[:3] == FROZEN)
    multiplier = BIAS if keys[-1] == 'bias' else 1.0
    return torch_sgd(value, gradients, rates, decayed * DECAY, multiplier)

  for ours, theirs in zip(
    jax.tree.leaves(got),
    jax.tree.leaves(jax.tree.map_with_path(expected, params, *gradients)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


def test_what_gets_no_gradient_never_moves():
  params = parameters()
  zeros = jax.tree.map(np.zeros_like, params)
  tx = optimizer(poly_schedule(0.1, 8, power=0.9, decay_every=0))
  unmarked = run(tx, params, [zeros] * 5)
  tx = optimizer(
    poly_schedule(0.1, 8, power=0.9, decay_every=0), frozen=(FROZEN,)
  )
  marked = run(tx, params, [zeros] * 5)
  still, moved = params['head']['unit'], unmarked['head']['unit']
  for ours, theirs in zip(
    jax.tree.leaves(marked['head']['unit']), jax.tree.leaves(still), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)
  # Others of the same name decay on, and so would this one unmarked.
  for kernel, before in (
    (marked['head']['conv_in'], params['head']['conv_in']),
    (marked['backbone']['conv_in'], params['backbone']['conv_in']),
    (moved['conv_in'], still['conv_in']),
  ):
    assert np.linalg.norm(kernel['kernel']) < np.linalg.norm(before['kernel'])
    np.testing.assert_array_equal(kernel['bias'], before['bias'])


@pytest.mark.parametrize(
  ('step', 'rounded'), [(0, 0), (8, 0), (9, 10), (18, 10), (19, 20), (99, 100)]
)
def test_the_authors_rate_changes_every_tenth_step(step, rounded):
  schedule = poly_schedule(9e-3, 100, power=0.9, decay_every=10)
  expected = 9e-3 * (1 - rounded / 100) ** 0.9
  got = jax.jit(schedule)(jnp.int32(step))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('step', [0, 1, 8, 50, 99, 100])
def test_the_smooth_rate_starts_full_and_ends_at_zero(step):
  schedule = poly_schedule(9e-3, 100, power=0.9, decay_every=0)
  expected = 9e-3 * (1 - step / 100) ** 0.9
  np.testing.assert_allclose(schedule(jnp.int32(step)), expected, rtol=1e-5)


@pytest.mark.parametrize('decay_every', [0, 10])
def test_the_rate_past_the_end_is_zero(decay_every):
  schedule = poly_schedule(9e-3, 100, power=0.9, decay_every=decay_every)
  assert schedule(jnp.int32(250)) == 0


def test_power_zero_keeps_the_rate():
  schedule = poly_schedule(9e-3, 100, power=0.0, decay_every=0)
  np.testing.assert_allclose(schedule(jnp.int32(90)), 9e-3, rtol=1e-6)


@pytest.mark.parametrize(
  ('options', 'got'),
  [
    ({'momentum': 1.0}, '1.0 and 0.01'),
    ({'momentum': -0.1}, '-0.1 and 0.01'),
    ({'weight_decay': -1e-4}, '0.9 and -0.0001'),
  ],
)
def test_options_out_of_range_are_refused(options, got):
  with pytest.raises(UserError, match=f'optimizer.momentum.*got {got}'):
    optimizer(optax.constant_schedule(0.1), **options)
