"""EM attention against a float64 twin, its properties and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emanet_jax.models import em_attention as em

BATCH, PIXELS, CHANNELS, BASES = 2, 30, 7, 4


@pytest.fixture(autouse=True)
def float64():
  """What is compared here is compared beyond float32's rounding."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def x():
  rng = np.random.default_rng(0)
  return rng.normal(0.3, 1, (BATCH, PIXELS, CHANNELS))


@pytest.fixture
def mu():
  bases = np.random.default_rng(1).normal(size=(BATCH, BASES, CHANNELS))
  return bases / np.linalg.norm(bases, axis=-1, keepdims=True)


@pytest.fixture
def z(x, mu):
  return twin_e_step(x, mu, 1.0)


def twin_e_step(x, mu, temperature):
  z = np.exp(temperature * x @ mu.swapaxes(1, 2))
  return z / z.sum(2, keepdims=True)


def twin_m_step(x, z, norm):
  mu = (z / (1e-6 + z.sum(1, keepdims=True))).swapaxes(1, 2) @ x
  if norm == 'l2':
    mu = mu / (1e-6 + np.sqrt((mu**2).sum(2, keepdims=True)))
  elif norm == 'layer':
    centred = mu - mu.mean(2, keepdims=True)
    mu = centred / np.sqrt((centred**2).mean(2, keepdims=True) + 1e-5)
  return mu


def twin(x, mu, num_stages, temperature=1.0, norm='l2'):
  for _ in range(num_stages):
    z = twin_e_step(x, mu, temperature)
    mu = twin_m_step(x, z, norm)
  return z @ mu, z, mu


@pytest.mark.parametrize('gradient', em.GRADIENTS)
@pytest.mark.parametrize('norm', em.BASIS_NORMS)
@pytest.mark.parametrize('num_stages', [1, 3, 8])
def test_rounds_equal_the_twin(x, mu, num_stages, norm, gradient):
  options = {'num_stages': num_stages, 'temperature': 0.7, 'norm': norm}
  got = em.em_attention(x, mu, gradient=gradient, **options)
  for ours, theirs in zip(got, twin(x, mu, **options), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_responsibilities_are_a_distribution_even_for_huge_features(x, mu):
  z = em.e_step(1e4 * x, mu)
  assert np.all(z >= 0)
  np.testing.assert_allclose(z.sum(2), 1, rtol=1e-12)


def test_pixels_in_another_order_change_nothing_else(x, mu):
  order = np.random.default_rng(2).permutation(PIXELS)
  out, z, bases = em.em_attention(x, mu, num_stages=3)
  out2, z2, bases2 = em.em_attention(x[:, order], mu, num_stages=3)
  np.testing.assert_allclose(out2, out[:, order], rtol=1e-9)
  np.testing.assert_allclose(z2, z[:, order], rtol=1e-9)
  np.testing.assert_allclose(bases2, bases, rtol=1e-9)


def test_bases_in_another_order_change_nothing_else(x, mu):
  order = np.random.default_rng(2).permutation(BASES)
  out, z, bases = em.em_attention(x, mu, num_stages=3)
  out2, z2, bases2 = em.em_attention(x, mu[:, order], num_stages=3)
  np.testing.assert_allclose(out2, out, rtol=1e-9)
  np.testing.assert_allclose(z2, z[..., order], rtol=1e-9)
  np.testing.assert_allclose(bases2, bases[:, order], rtol=1e-9)


def test_images_of_a_batch_do_not_touch_each_other(x, mu):
  whole = em.em_attention(x, mu, num_stages=3)
  for i in range(BATCH):
    alone = em.em_attention(x[i : i + 1], mu[i : i + 1], num_stages=3)
    for ours, theirs in zip(whole, alone, strict=True):
      np.testing.assert_allclose(ours[i : i + 1], theirs, rtol=1e-9)


@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_likelihood_never_falls(x, mu, temperature):
  # With bases of unit length the rounds are EM for the mixture
  # Σ_k exp(λ x·μ_k): each basis maximises Σ_n z_nk x_n·μ_k on the sphere.
  def likelihood(mu):
    logits = temperature * x @ np.swapaxes(mu, 1, 2)
    return np.log(np.exp(logits).sum(2)).sum(1)

  curve, bases = [likelihood(mu)], mu
  for _ in range(24):
    z = em.e_step(x, bases, temperature=temperature)
    bases = np.asarray(em.m_step(x, z))
    # The 1e-6 in the norm leaves them a little short of the sphere.
    length = np.linalg.norm(bases, axis=-1, keepdims=True)
    curve.append(likelihood(bases / length))
  rises = np.diff(curve, axis=0)
  assert rises.min() > -1e-5 * temperature
  assert np.all(rises[0] > 0.1 * temperature)


def test_m_step_does_not_count_pixels(x, z):
  doubled = em.m_step(np.tile(x, (1, 2, 1)), np.tile(z, (1, 2, 1)))
  # To the 1e-6 in its denominators.
  np.testing.assert_allclose(doubled, em.m_step(x, z), rtol=1e-5, atol=1e-6)


def test_e_step_sees_only_what_lies_along_the_bases(x, mu):
  null_space = np.linalg.svd(mu)[2][:, BASES:]  # [b, c - k, c]
  shift = null_space.sum(1, keepdims=True)
  assert np.abs(shift).max() > 0.1
  np.testing.assert_allclose(em.e_step(x + 5 * shift, mu), em.e_step(x, mu))


def test_l2_bases_do_not_feel_the_features_scale(x, z):
  bases = em.m_step(x, z, norm='l2')
  np.testing.assert_allclose(np.linalg.norm(bases, axis=-1), 1, rtol=1e-4)
  np.testing.assert_allclose(
    em.m_step(50 * x, z, norm='l2'), bases, rtol=1e-4, atol=1e-5
  )


def test_layer_bases_do_not_feel_a_shift_of_all_channels(x, z):
  np.testing.assert_allclose(
    em.m_step(x + 3, z, norm='layer'),
    em.m_step(x, z, norm='layer'),
    rtol=1e-4,
    atol=1e-5,
  )


def test_plain_bases_are_weighted_means(x):
  ones = np.full((BATCH, PIXELS, 1), 0.5)
  mean = x.mean(1, keepdims=True)
  np.testing.assert_allclose(em.m_step(x, ones, norm='none'), mean, rtol=1e-6)


def scalar(function):
  """A scalar of X̃ and Z, with fixed random weights."""
  rng = np.random.default_rng(3)
  on_out = rng.normal(size=(BATCH, PIXELS, CHANNELS))
  on_z = rng.normal(size=(BATCH, PIXELS, BASES))

  def value(x, mu):
    out, z = function(x, mu)[:2]
    return (on_out * out).sum() + (on_z * z).sum()

  return value


def rounds(gradient, num_stages=3):
  return lambda x, mu: em.em_attention(
    x, mu, num_stages=num_stages, temperature=0.7, gradient=gradient
  )


def test_a_basis_without_pixels_keeps_gradients_finite(mu):
  """Features so large that one basis' responsibilities underflow to zero."""
  x = 1e5 * jnp.abs(jnp.asarray(mu[:, :2])).repeat(3, axis=1)
  mu = jnp.asarray(mu).at[:, -1].set(-jnp.abs(mu[:, -1]))

  def total(x, mu):
    out, z, bases = em.em_attention(x, mu, num_stages=2, gradient='full')
    return jnp.square(out).sum(), (z, bases)

  gradients, (z, bases) = jax.grad(total, (0, 1), has_aux=True)(x, mu)
  assert (np.asarray(z).max(axis=1) == 0).any()
  assert (np.abs(bases).max(axis=-1) == 0).any()
  assert all(np.isfinite(g).all() for g in gradients)


def test_cut_lets_no_gradient_through(x, mu):
  for gradient in jax.grad(scalar(rounds('cut')), (0, 1))(x, mu):
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('num_stages', [1, 3])
def test_last_is_the_gradient_of_the_last_e_step(x, mu, num_stages):
  before = twin(x, mu, num_stages - 1, 0.7)[2] if num_stages > 1 else mu
  after = twin(x, mu, num_stages, 0.7)[2]

  def last_round(x, _):
    z = jax.nn.softmax(0.7 * x @ before.swapaxes(1, 2), axis=-1)
    return z @ after, z

  expected = jax.grad(scalar(last_round))(x, mu)
  got, got_mu = jax.grad(scalar(rounds('last', num_stages)), (0, 1))(x, mu)
  assert np.abs(expected).max() > 0.01
  np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-12)
  np.testing.assert_array_equal(got_mu, 0)


@pytest.mark.parametrize('num_stages', [1, 3])
def test_full_agrees_with_finite_differences(x, mu, num_stages):
  check_grads(
    scalar(rounds('full', num_stages)),
    (jnp.asarray(x), jnp.asarray(mu)),
    order=1,
    modes=['rev'],
    atol=1e-6,
    rtol=1e-6,
  )


def test_full_reaches_the_first_bases(x, mu):
  gradient = jax.grad(scalar(rounds('full')), 1)(x, mu)
  assert np.all(np.abs(gradient).max(axis=-1) > 1e-6)
