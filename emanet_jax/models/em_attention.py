"""Expectation-maximization attention (paper, section 3).

A non-local block relates every pixel to every pixel. Here K bases, found by a
few EM steps on the image's own features, stand in for all of them: the
features are re-estimated as X̃ = Z μ, of rank K, at O(NKT) cost.

Symbols are the paper's: x features, z responsibilities, mu bases; n pixels, c
channels, k bases. All arithmetic is float32, whatever the features' dtype: in
bfloat16 throughout, one pixel in nine would change its strongest basis.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models import layers
from emanet_jax.models.layers import Conv, ConvNorm
from emanet_jax.models.norm import at_least_float32

_EPSILON = 1e-6
BASIS_NORMS = ('l2', 'layer', 'none')
MAINTENANCES = ('moving_average', 'parameter', 'none')
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


class EMAUnit(nn.Module):
  """1×1 convolution, EM attention, ReLU, 1×1 + norm, + input, ReLU.

  μ⁰ lives in the collection `bases` as `mu` [k, c] float32, and is written
  only in training: μ⁰ ← α μ⁰ + (1 - α) mean_b μ^(T), over the global batch,
  not renormalised (paper, authors' train.py) unless asked for. The last
  responsibilities [b, h, w, k] and the final bases [b, k, c] are sown into
  `intermediates` as `responsibilities` and `bases`.

  Attributes:
    num_bases: K.
    num_stages: T in training.
    eval_stages: T in evaluation; 0 takes num_stages.
    momentum: α of the moving average.
    renormalize: Whether the batch mean enters it normalised as the bases are:
      mmsegmentation's way.
    temperature: λ.
    basis_norm: One of BASIS_NORMS.
    maintenance: How μ⁰ is kept: 'moving_average', 'parameter' (learnt, in
      `params`; needs gradient 'full'), or 'none' (its random start stays).
    gradient: One of GRADIENTS. Under 'cut' the first convolution never gets a
      gradient, see `frozen_params`.
    norm_momentum: Share of the batch norm's running statistics kept per step.
  """

  num_bases: int = 64
  num_stages: int = 3
  eval_stages: int = 0
  momentum: float = 0.9
  renormalize: bool = False
  temperature: float = 1.0
  basis_norm: str = 'l2'
  maintenance: str = 'moving_average'
  gradient: str = 'cut'
  norm_momentum: float = 0.9997

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    batch, height, width, channels = x.shape
    y = Conv(channels, use_bias=True, name='conv_in')(x)
    y = at_least_float32(y.reshape(batch, height * width, channels))

    mu0, store = self._bases(channels)
    counted = None
    if extent is not None:
      counted = layers.inside(extent, (height, width)).reshape(batch, -1)
    stages = (not train and self.eval_stages) or self.num_stages
    y, z, mu = em_attention(
      y,
      jnp.broadcast_to(mu0, (batch, *mu0.shape)),
      num_stages=stages,
      temperature=self.temperature,
      norm=self.basis_norm,
      gradient=self.gradient,
      inside=counted,
    )
    if train and store is not None and not self.is_initializing():
      mean = lax.stop_gradient(mu).mean(axis=0)
      if self.renormalize:
        mean = normalize_bases(mean, self.basis_norm)
      store.value = self.momentum * mu0 + (1 - self.momentum) * mean
    self.sow('intermediates', 'bases', mu)
    self.sow(
      'intermediates',
      'responsibilities',
      z.reshape(batch, height, width, self.num_bases),
    )

    y = nn.relu(y).reshape(x.shape).astype(x.dtype)
    y = ConvNorm(
      channels,
      norm_momentum=self.norm_momentum,
      use_relu=False,
      name='conv_out',
    )(y, train=train)
    return nn.relu(x + y)

  def frozen_params(self) -> tuple[tuple[str, ...], ...]:
    """Paths, from this module, of parameters that never get a gradient."""
    return (('conv_in',),) if self.gradient == 'cut' else ()

  def _bases(self, channels: int):
    """μ⁰ [k, c], and the variable to store its moving average in, if any."""

    def init(key, shape):
      mu = jax.random.normal(key, shape) * jnp.sqrt(2 / shape[0])
      return normalize_bases(mu, 'l2')

    shape = (self.num_bases, channels)
    if self.maintenance == 'parameter':
      return self.param('mu', init, shape), None
    mu = self.variable(
      'bases', 'mu', lambda: init(self.make_rng('params'), shape)
    )
    return mu.value, mu if self.maintenance == 'moving_average' else None


def check_unit(unit: EMAUnit) -> None:
  """Raises a UserError for a unit that cannot be what its options say."""
  for key, known in (
    ('basis_norm', BASIS_NORMS),
    ('maintenance', MAINTENANCES),
    ('gradient', GRADIENTS),
  ):
    if getattr(unit, key) not in known:
      raise UserError(
        f'model.head.{key} is {getattr(unit, key)!r}; known are {known}'
      )
  if not 0 <= unit.momentum <= 1:
    raise UserError(f'model.head.momentum is {unit.momentum}; give 0 to 1')
  if unit.num_bases < 1 or unit.num_stages < 1 or unit.eval_stages < 0:
    raise UserError(
      'model.head needs num_bases ≥ 1, num_stages ≥ 1 and eval_stages ≥ 0; '
      f'got {unit.num_bases}, {unit.num_stages} and {unit.eval_stages}'
    )
  if unit.maintenance == 'parameter' and unit.gradient != 'full':
    raise UserError(
      "model.head.maintenance 'parameter' learns the bases by gradients, but "
      f'model.head.gradient {unit.gradient!r} lets none reach them; set it to '
      "'full'"
    )
