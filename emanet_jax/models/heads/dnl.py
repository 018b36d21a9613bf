"""DNLNet's disentangled Non-local block in a head, as mmsegmentation builds it.

Yin et al., "Disentangled Non-Local Neural Networks" (ECCV 2020): attention
between pairs of pixels, of queries and keys less their means, and an average
that is the same for all pixels, of scores of its own.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.attention.gather import gather_weights
from emanet_jax.models.attention.non_local import (
  project,
  restore,
  softmax_weights,
)
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.heads._shared import BlockHead, check
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import sow_attention

FREE_IN_EVALUATION = ('dropout_rate',)


class DisentangledNonLocal(nn.Module):
  """out = x + BN(W y), with the normalisation's scale 0 at the start.

  With queries θ, keys φ and values g, 1×1 convolutions of x to d channels, and
  scores m, one to 1,

    yᵢ = Σⱼ softmaxⱼ((θᵢ - mean θ)·(φⱼ - mean φ) / (√d τ)) gⱼ
         + Σⱼ softmaxⱼ(mⱼ) gⱼ.

  Costs 2·n²·d, and the matrix of n² is kept for the gradient.

  Attributes:
    inner_channels: d.
    temperature: τ.
    use_scale: Whether there is √d.
    norm_momentum: Share of running statistics kept per step.
  """

  inner_channels: int
  temperature: float
  use_scale: bool
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    theta, phi, g = (
      flatten(project(self.inner_channels, name)(x))
      for name in ('theta', 'phi', 'g')
    )
    counted = positions_inside(extent, x.shape)
    scale = np.sqrt(self.inner_channels) if self.use_scale else 1.0
    theta, phi = (_less_mean(value, counted) for value in (theta, phi))
    pairs = softmax_weights(theta, phi, counted, scale * self.temperature)
    scores = flatten(project(1, 'mask')(x))
    average = gather_weights(scores, counted)
    sow_attention(self, 'attention between pairs', pairs)
    sow_attention(
      self, 'the same for all pixels', jnp.ones_like(scores), average
    )
    y = weighted_sums(pairs, g) + weighted_sums(average, g)
    y = y.reshape(*x.shape[:-1], -1)
    return x + restore(x.shape[-1], self.norm_momentum)(y, train=train)


def _less_mean(
  value: Float[Array, 'b n d'], counted: Bool[Array, 'b n']
) -> Float[Array, 'b n d']:
  """Less the mean of the counted positions."""
  counted = counted[..., None]
  wide = at_least_float32(value)
  count = jnp.maximum(counted.sum(1, keepdims=True), 1)
  mean = jnp.where(counted, wide, 0).sum(1, keepdims=True) / count
  return (wide - mean).astype(value.dtype)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 256,
  temperature: float = 0.05,
  use_scale: bool = True,
  dropout_rate: float = 0.1,
) -> BlockHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `BlockHead`.
    inner_channels: Width of queries, keys and values.
    temperature: That the products of queries and keys are divided by.
    use_scale: Whether they are divided by the root of inner_channels, too.
    dropout_rate: See `BlockHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('dnl', dropout_rate, channels=channels, inner_channels=inner_channels)
  if not temperature > 0:
    raise UserError(f'model.head.temperature is {temperature}; it must be > 0')
  block = DisentangledNonLocal(
    inner_channels, temperature, use_scale, norm_momentum
  )
  return BlockHead(num_classes, channels, dropout_rate, norm_momentum, block)
