"""The EM attention unit: its bases, its intermediates, its precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.models import ema_unit as em
from emanet_jax.models.em_attention import m_step
from emanet_jax.runtime import sharding

SHAPE = (4, 3, 5, 8)
STATE = ['bases', 'batch_stats', 'intermediates']


@pytest.fixture
def make(draw_variables):
  """Returns a function (**options) -> a unit, its variables, an input."""

  def unit_of(**options):
    unit = em.EMAUnit(num_bases=4, norm_momentum=0.9, **options)
    x = jax.random.normal(jax.random.key(1), SHAPE)
    return unit, draw_variables(unit, SHAPE), x

  return unit_of


@pytest.fixture
def apply():
  """Returns a function (unit, variables, x, train) -> output, state."""

  def run(unit, variables, x, *, train):
    function = functools.partial(unit.apply, train=train, mutable=STATE)
    return jax.jit(function)(variables, x)

  return run


def sown(state, name):
  return np.asarray(state['intermediates'][name][0])


def expected_bases(variables, x, num_stages, mu0):
  """μ^(T) of each image, from the unit's first convolution on, in float64."""
  params = variables['params']['conv_in']
  kernel, bias = (np.float64(params[k]) for k in ('kernel', 'bias'))
  y = np.float64(x).reshape(len(x), -1, x.shape[-1]) @ kernel[0, 0] + bias
  mu = np.float64(mu0)[None]
  for _ in range(num_stages):
    z = np.exp(y @ mu.swapaxes(1, 2))
    z /= z.sum(2, keepdims=True)
    mu = (z / (1e-6 + z.sum(1, keepdims=True))).swapaxes(1, 2) @ y
    mu /= 1e-6 + np.linalg.norm(mu, axis=-1, keepdims=True)
  return mu


@pytest.mark.parametrize('num_stages', [1, 2, 3])
def test_few_rounds_are_right_as_one_program(num_stages, draw_variables, apply):
  """XLA of jaxlib 0.10.2 multiplied bases of its own at this size."""
  shape = 4, 9, 9, 128
  unit = em.EMAUnit(num_bases=16, num_stages=num_stages)
  variables = draw_variables(unit, shape)
  x = np.float32(np.random.default_rng(0).normal(size=shape))
  _, state = apply(unit, variables, x, train=False)
  mu0 = variables['bases']['mu']
  expected = expected_bases(variables, x, num_stages, mu0)
  np.testing.assert_allclose(sown(state, 'bases'), expected, atol=2e-5)


@pytest.mark.parametrize('momentum', [0.9, 0.5])
def test_training_moves_the_bases_to_the_batch_mean(momentum, make, apply):
  unit, variables, x = make(momentum=momentum)
  mu0 = variables['bases']['mu']
  _, state = apply(unit, variables, x, train=True)
  mean = expected_bases(variables, x, 3, mu0).mean(0)
  expected = momentum * mu0 + (1 - momentum) * mean
  np.testing.assert_allclose(state['bases']['mu'], expected, atol=2e-6)
  # Not renormalised: a mean of unit vectors is shorter than one.
  assert np.linalg.norm(state['bases']['mu'], axis=-1).max() < 0.9999


def test_the_batch_mean_is_normalised_first_where_asked(make, apply):
  unit, variables, x = make(renormalize=True)
  mu0 = variables['bases']['mu']
  _, state = apply(unit, variables, x, train=True)
  mean = expected_bases(variables, x, 3, mu0).mean(0)
  length = np.linalg.norm(mean, axis=-1, keepdims=True)
  assert length.max() < 0.999
  expected = 0.9 * mu0 + 0.1 * mean / length
  np.testing.assert_allclose(state['bases']['mu'], expected, atol=2e-6)


def test_evaluation_and_initialisation_leave_the_bases_alone(make, apply):
  unit, variables, x = make()
  _, state = apply(unit, variables, x, train=False)
  np.testing.assert_array_equal(state['bases']['mu'], variables['bases']['mu'])
  for train in (False, True):
    fresh = jax.jit(functools.partial(unit.init, train=train))
    bases = fresh(jax.random.key(0), x)['bases']['mu']
    # A moving average would have made them shorter.
    np.testing.assert_allclose(np.linalg.norm(bases, axis=-1), 1, rtol=1e-5)


def test_bases_average_over_the_batch_of_all_devices(make):
  unit, variables, x = make()
  mesh = sharding.create_mesh(jax.devices('cpu')[:4])

  @jax.jit
  def bases(variables, x):
    state = unit.apply(variables, x, train=True, mutable=STATE)[1]
    return state['bases']['mu'], state['batch_stats']

  alone = bases(variables, x)
  x = jax.device_put(x, sharding.batch_sharding(mesh))
  variables = jax.device_put(variables, sharding.replicated(mesh))
  assert len(x.sharding.device_set) == 4
  together = bases(variables, x)
  for ours, theirs in zip(
    jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('eval_stages', 'train', 'rounds'),
  [(5, True, 2), (5, False, 5), (1, False, 1), (0, False, 2)],
)
def test_evaluation_has_rounds_of_its_own(
  eval_stages, train, rounds, make, apply
):
  unit, variables, x = make(num_stages=2, eval_stages=eval_stages)
  _, state = apply(unit, variables, x, train=train)
  expected = expected_bases(variables, x, rounds, variables['bases']['mu'])
  np.testing.assert_allclose(sown(state, 'bases'), expected, atol=5e-6)


def test_learnt_bases_are_a_parameter_with_a_gradient(make):
  unit, variables, x = make(maintenance='parameter', gradient='full')
  assert 'bases' not in variables

  def loss(params):
    y, state = unit.apply(
      {**variables, 'params': params}, x, train=True, mutable=STATE
    )
    assert 'bases' not in state
    return (y * jnp.arange(y.size).reshape(y.shape)).mean()

  gradient = jax.jit(jax.grad(loss))(variables['params'])['mu']
  assert gradient.shape == (4, SHAPE[-1])
  assert np.all(np.abs(gradient).max(axis=-1) > 0)


def test_unmaintained_bases_stay_as_they_were_drawn(make, apply):
  unit, variables, x = make(maintenance='none')
  _, state = apply(unit, variables, x, train=True)
  np.testing.assert_array_equal(state['bases']['mu'], variables['bases']['mu'])


def test_sown_responsibilities_make_the_sown_bases_and_the_output(make, apply):
  unit, variables, x = make()
  out, state = apply(unit, variables, x, train=False)
  z, mu = sown(state, 'responsibilities'), sown(state, 'bases')
  assert z.shape == (*SHAPE[:3], 4)
  np.testing.assert_allclose(z.sum(-1), 1, rtol=1e-5)
  params = variables['params']
  first = params['conv_in']
  pixels = z.reshape(SHAPE[0], -1, 4)
  y = x.reshape(SHAPE[0], -1, SHAPE[-1]) @ first['kernel'][0, 0]
  y = y + first['bias']
  np.testing.assert_allclose(m_step(y, pixels), mu, atol=1e-5)
  kernel = np.asarray(params['conv_out']['conv']['kernel'])[0, 0]
  again = np.maximum(pixels @ mu, 0).reshape(SHAPE) @ kernel
  norm = params['conv_out']['norm']
  stats = variables['batch_stats']['conv_out']['norm']
  again = (again - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  expected = np.maximum(x + again * norm['scale'] + norm['bias'], 0)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_em_is_float32_under_bfloat16_features(make, apply):
  unit, variables, x = make()
  first = variables['params']['conv_in']
  first['kernel'] = jnp.eye(SHAPE[-1])[None, None]
  first['bias'] = jnp.zeros(SHAPE[-1])
  half = (3 * x).astype(jnp.bfloat16)
  out, state = apply(unit, variables, half, train=True)
  _, full = apply(unit, variables, half.astype(jnp.float32), train=True)
  assert out.dtype == jnp.bfloat16
  assert state['bases']['mu'].dtype == jnp.float32
  assert sown(state, 'responsibilities').dtype == np.float32
  # Bases and responsibilities come before anything is rounded again.
  for name in ('bases', 'responsibilities'):
    np.testing.assert_allclose(sown(state, name), sown(full, name), atol=1e-6)
  np.testing.assert_allclose(
    state['bases']['mu'], full['bases']['mu'], atol=1e-6
  )


@pytest.mark.parametrize(
  ('gradient', 'paths'),
  [('cut', (('conv_in',),)), ('last', ()), ('full', ())],
)
def test_frozen_params_are_those_without_gradient(gradient, paths, make):
  unit, variables, x = make(gradient=gradient)
  assert unit.frozen_params() == paths

  def loss(params):
    y, _ = unit.apply(
      {**variables, 'params': params}, x, train=True, mutable=STATE
    )
    return (y * jnp.arange(y.size).reshape(y.shape)).mean()

  gradients = jax.jit(jax.grad(loss))(variables['params'])
  for name in ('conv_in', 'conv_out'):
    for leaf in jax.tree.leaves(gradients[name]):
      assert np.any(leaf != 0) == ((name,) not in paths)


@pytest.mark.parametrize(
  ('options', 'named'),
  [
    ({'basis_norm': 'l1'}, "basis_norm is 'l1'.*'layer'"),
    ({'maintenance': 'ema'}, "maintenance is 'ema'.*'parameter'"),
    ({'gradient': 'all'}, "gradient is 'all'.*'last'"),
    ({'num_bases': 0}, 'num_bases ≥ 1.*got 0'),
    ({'num_stages': 0}, 'num_stages ≥ 1.*64, 0'),
    ({'eval_stages': -1}, 'eval_stages ≥ 0.*-1'),
    ({'maintenance': 'parameter'}, "gradient 'cut'.*'full'"),
    ({'maintenance': 'parameter', 'gradient': 'last'}, "gradient 'last'"),
  ],
)
def test_impossible_units_are_refused(options, named):
  with pytest.raises(UserError, match=named):
    em.check_unit(em.EMAUnit(**options))
