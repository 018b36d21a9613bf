"""Expectation-maximization attention (paper, section 3).

A non-local block relates every pixel to every pixel. Here K bases, found by a
few EM steps on the image's own features, stand in for all of them: the
features are re-estimated as X̃ = Z μ, of rank K, at O(NKT) cost.

Symbols are the paper's: x features, z responsibilities, mu bases; n pixels, c
channels, k bases. All arithmetic is float32, whatever the features' dtype: in
bfloat16 throughout, one pixel in nine would change its strongest basis.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from emanet_jax.array import Array

_EPSILON = 1e-6
BASIS_NORMS = ('l2', 'layer', 'none')
GRADIENTS = ('cut', 'last', 'full')


def e_step(
  x: Float[Array, 'b n c'],
  mu: Float[Array, 'b k c'],
  *,
  temperature: float = 1.0,
) -> Float[Array, 'b n k']:
  """A_E: each pixel's responsibilities, softmax_k(λ x μᵀ) (equation 8).

  Args:
    x: Features, float32.
    mu: Bases, float32.
    temperature: λ of the paper, a factor on the logits.

  Returns:
    Responsibilities in [0, 1]; each pixel's sum to 1 over the bases.
  """
  logits = jnp.einsum('bnc,bkc->bnk', x, mu, precision=lax.Precision.HIGHEST)
  return jax.nn.softmax(temperature * logits, axis=-1)


def m_step(
  x: Float[Array, 'b n c'],
  z: Float[Array, 'b n k'],
  *,
  norm: str = 'l2',
  inside: Bool[Array, 'b n'] | None = None,
) -> Float[Array, 'b k c']:
  """A_M: each basis as the mean of x weighted by z (equation 9), normalised.

  The denominators are the authors': 1e-6 + Σ_n z_nk, and 1e-6 + ‖μ_k‖.

  Args:
    x: Features, float32.
    z: Responsibilities, float32.
    norm: See `normalize_bases`.
    inside: Pixels that count; None: all.
  """
  # Pixels beyond an image's border belong to no basis; their own rows of Z
  # stay, since nothing is made of them.
  if inside is not None:
    z = jnp.where(inside[..., None], z, 0)
  weights = z / (_EPSILON + z.sum(axis=1, keepdims=True))
  mu = jnp.einsum('bnk,bnc->bkc', weights, x, precision=lax.Precision.HIGHEST)
  return normalize_bases(mu, norm)


def normalize_bases(
  mu: Float[Array, '*b k c'], norm: str
) -> Float[Array, '*b k c']:
  """Keeps the bases in range between EM rounds (section 3.3, table 1).

  Args:
    mu: Bases.
    norm: 'l2' divides each basis by its length (the authors' choice), 'layer'
      gives it zero mean and unit variance over its channels, 'none' does
      nothing.
  """
  if norm == 'l2':
    square = jnp.square(mu).sum(axis=-1, keepdims=True)
    # The root's slope at zero, where a basis no pixel chose lies, is infinite.
    alive = square > 0
    length = jnp.where(alive, jnp.sqrt(jnp.where(alive, square, 1)), 0)
    return mu / (_EPSILON + length)
  if norm == 'layer':
    return jax.nn.standardize(mu, axis=-1, epsilon=1e-5)
  return mu


def reestimate(
  z: Float[Array, 'b n k'], mu: Float[Array, 'b k c']
) -> Float[Array, 'b n c']:
  """A_R: the features rebuilt from the bases, X̃ = Z μ (equation 10)."""
  return jnp.einsum('bnk,bkc->bnc', z, mu, precision=lax.Precision.HIGHEST)


def em_attention(
  x: Float[Array, 'b n c'],
  mu: Float[Array, 'b k c'],
  *,
  num_stages: int,
  temperature: float = 1.0,
  norm: str = 'l2',
  gradient: str = 'cut',
  inside: Bool[Array, 'b n'] | None = None,
) -> tuple[Float[Array, 'b n c'], Float[Array, 'b n k'], Float[Array, 'b k c']]:
  """T rounds of EM, then the re-estimation.

  X̃ is built from the last E step's responsibilities and the bases of the M
  step after it.

  Args:
    x: Features, float32.
    mu: Initial bases μ⁰, float32.
    num_stages: T, at least 1.
    temperature: λ.
    norm: Normalisation of the bases, see `normalize_bases`.
    gradient: 'cut' lets no gradient through to x or mu (the authors' code);
      'last' lets it through the last E step and the re-estimation; 'full'
      through every round.
    inside: Pixels that count for the bases; None: all.

  Returns:
    X̃, Z of the last E step, and μ^(T).
  """
  # Three ways for gradients, as two versions of x: what the rounds see, and
  # what the last E step sees. A stopped one is a constant to differentiation.
  x_loop = x if gradient == 'full' else lax.stop_gradient(x)
  x_last = lax.stop_gradient(x) if gradient == 'cut' else x

  def one_round(_, mu):
    z = e_step(x_loop, mu, temperature=temperature)
    return m_step(x_loop, z, norm=norm, inside=inside)

  if gradient != 'full':
    mu = lax.stop_gradient(mu)
  # The last round stands outside the loop: its z is part of the answer, and
  # is where gradients may enter.
  mu = lax.fori_loop(0, num_stages - 1, one_round, mu)
  z = e_step(x_last, mu, temperature=temperature)
  z_loop = z if gradient == 'full' else lax.stop_gradient(z)
  mu = m_step(x_loop, z_loop, norm=norm, inside=inside)
  return reestimate(z, mu), z, mu
