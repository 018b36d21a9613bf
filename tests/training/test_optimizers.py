"""The optimizer against torch.optim.SGD's update written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.training import schedules
from emanet_jax.training.optimizers import adamw, create_optimizer, sgd

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


def optimizer(*, frozen=(), **options):
  defaults = {
    'learning_rate': 0.1,
    'momentum': MOMENTUM,
    'weight_decay': DECAY,
    'bias_multiplier': BIAS,
    'decay_every': 0,
  }
  return sgd.create(8, frozen, **{**defaults, **options})[0]


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
  rates = [0.1 * (1 - step / 8) ** 0.9 for step in range(5)]
  got = run(optimizer(frozen=frozen), params, gradients)

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
  unmarked = run(optimizer(), params, [zeros] * 5)
  marked = run(optimizer(frozen=(FROZEN,)), params, [zeros] * 5)
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
  schedule = schedules.poly(9e-3, 100, power=0.9, decay_every=10)
  expected = 9e-3 * (1 - rounded / 100) ** 0.9
  got = jax.jit(schedule)(jnp.int32(step))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize('step', [0, 1, 8, 50, 99, 100])
def test_the_smooth_rate_starts_full_and_ends_at_zero(step):
  schedule = schedules.poly(9e-3, 100, power=0.9, decay_every=0)
  expected = 9e-3 * (1 - step / 100) ** 0.9
  np.testing.assert_allclose(schedule(jnp.int32(step)), expected, rtol=1e-5)


@pytest.mark.parametrize('decay_every', [0, 10])
def test_the_rate_past_the_end_is_zero(decay_every):
  schedule = schedules.poly(9e-3, 100, power=0.9, decay_every=decay_every)
  assert schedule(jnp.int32(250)) == 0


def test_power_zero_keeps_the_rate():
  schedule = schedules.poly(9e-3, 100, power=0.0, decay_every=0)
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
    optimizer(**options)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_warm_up_rises_in_a_line_to_the_rate_and_the_decay_starts_there(name):
  config = default_config().optimizer
  config.name = name
  config.update(learning_rate=0.2, warmup_steps=4)
  if name == 'sgd':
    config.decay_every = 0
  _, schedule = create_optimizer(config, 20)
  rates = [float(schedule(jnp.int32(step))) for step in range(21)]
  np.testing.assert_allclose(rates[:5], 0.2 * np.arange(1, 6) / 5, rtol=1e-6)
  share = np.arange(17) / 16
  decay = (1 - share) ** 0.9
  if name == 'adamw':
    decay = (1 + np.cos(np.pi * share)) / 2
  np.testing.assert_allclose(rates[4:], 0.2 * decay, rtol=1e-5, atol=1e-8)


def test_adamw_may_decay_in_a_line():
  _, schedule = adamw.create(10, (), learning_rate=0.5, schedule='poly')
  rates = [float(schedule(step)) for step in range(11)]
  np.testing.assert_allclose(rates, 0.5 * (1 - np.arange(11) / 10), rtol=1e-6)


def torch_adamw(value, gradients, rates, decay):
  """torch.optim.AdamW's update in float64."""
  value, mean, square = np.float64(value), 0.0, 0.0
  for i, (gradient, rate) in enumerate(
    zip(gradients, rates, strict=True), start=1
  ):
    value = value * (1 - rate * decay)
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.99 * square + 0.01 * np.square(np.float64(gradient))
    step = mean / (1 - 0.9**i)
    value = value - rate * step / (np.sqrt(square / (1 - 0.99**i)) + 1e-6)
  return value


def test_adamw_is_pytorchs_and_decays_kernels_alone():
  params, gradients = parameters(), [parameters(1 + i) for i in range(5)]
  tx, schedule = adamw.create(
    8,
    (FROZEN,),
    learning_rate=0.1,
    weight_decay=0.3,
    beta2=0.99,
    epsilon=1e-6,
    warmup_steps=2,
  )
  rates = [float(schedule(jnp.int32(step))) for step in range(5)]
  got = run(tx, params, gradients)

  def expected(path, value, *gradients):
    keys = tuple(k.key for k in path)
    decayed = keys[-1] == 'kernel' and keys[:3] != FROZEN
    return torch_adamw(value, gradients, rates, 0.3 * decayed)

  for ours, theirs in zip(
    jax.tree.leaves(got),
    jax.tree.leaves(jax.tree.map_with_path(expected, params, *gradients)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_large_gradients_are_clipped_to_the_norm(name):
  params = parameters()
  gradient = parameters(1)
  norm = float(optax.tree.norm(gradient))
  create = {'sgd': sgd.create, 'adamw': adamw.create}[name]

  def result(gradient, clip_norm):
    tx, _ = create(8, (), learning_rate=0.1, clip_norm=clip_norm)
    return run(tx, params, [gradient])

  clipped = result(gradient, norm / 4)
  scaled = result(jax.tree.map(lambda x: x / 4, gradient), 0.0)
  free = result(gradient, 2 * norm)
  for a, b in zip(*map(jax.tree.leaves, (clipped, scaled)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  for a, b in zip(
    *map(jax.tree.leaves, (free, result(gradient, 0.0))), strict=True
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('adamw', {'schedule': 'step'}, "'step'; known are cosine, poly"),
    ('adamw', {'beta1': 1.0}, 'beta1 and optimizer.beta2 must be in'),
    ('adamw', {'weight_decay': -1.0}, 'weight_decay is -1.0; it must be ≥ 0'),
    ('adamw', {'poly_power': -1.0}, 'poly_power is -1.0; it must be ≥ 0'),
    ('sgd', {'decay_every': -1}, 'decay_every is -1; it must be ≥ 0'),
    ('adamw', {'warmup_steps': 20}, 'warmup_steps is 20; .* must be 0 to 19'),
    ('sgd', {'warmup_steps': -1}, 'warmup_steps is -1'),
    ('sgd', {'clip_norm': -1.0}, 'clip_norm is -1.0; it must be ≥ 0'),
    ('sgd', {'learning_rate': -1.0}, 'learning_rate is -1.0; it must be ≥ 0'),
  ],
)
def test_impossible_optimizers_are_refused(name, options, message):
  config = default_config().optimizer
  config.name = name
  config.update(**options)
  with pytest.raises(UserError, match=message):
    create_optimizer(config, 20)
