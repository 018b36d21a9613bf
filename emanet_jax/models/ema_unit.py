"""The EM attention unit: a layer around EM attention that keeps the bases."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models import layers
from emanet_jax.models.em_attention import (
  BASIS_NORMS,
  GRADIENTS,
  em_attention,
  normalize_bases,
)
from emanet_jax.models.layers import Conv, ConvNorm
from emanet_jax.models.norm import at_least_float32

MAINTENANCES = ('moving_average', 'parameter', 'none')


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
    # From here to the re-estimation all is float32 or wider, see em_attention.
    y = at_least_float32(y.reshape(batch, height * width, channels))

    mu0, store = self._bases(channels)
    counted = None
    if extent is not None:
      counted = layers.inside(extent, (height, width)).reshape(batch, -1)
    stages = (not train and self.eval_stages) or self.num_stages
    y, z, mu = em_attention(
      y,
      _for_each_image(mu0, x, stages),
      num_stages=stages,
      temperature=self.temperature,
      norm=self.basis_norm,
      gradient=self.gradient,
      inside=counted,
    )
    # The mean over the batch axis is that of the global batch under jit. At
    # initialisation the variable must keep its random start.
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


def _for_each_image(
  mu0: Float[Array, 'k c'], x: Float[Array, 'b h w c'], num_stages: int
) -> Float[Array, 'b k c']:
  """The bases that the rounds of each image begin with.

  XLA of jaxlib 0.10.2 fuses a broadcast on CPUs with the product and the
  reduction behind it, and multiplies wrongly then (jax-ml/jax#39103). Three
  rounds are a loop, which the broadcast stays out of; one or two are none, and
  take one of two copies, by what XLA cannot know. (It drops a barrier.)
  """
  if num_stages < 3:
    either = (x[:, 0, 0, 0] > 0).astype(jnp.int32)
    return jnp.take(jnp.stack([mu0, mu0]), either, axis=0, mode='clip')
  return jnp.broadcast_to(mu0, (x.shape[0], *mu0.shape))


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
