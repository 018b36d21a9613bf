"""GCNet's global context in a segmentation head, as mmsegmentation builds it.

Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
Beyond" (ICCV Workshops 2019): what Non-local attends to is nearly the same for
all pixels, so that one average serves them all. The authors put the block into
backbones for detection.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.gather import gather_weights
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.heads._shared import (
  BlockHead,
  check,
  conv1x1,
  zero_conv1x1,
)
from emanet_jax.models.layers import layer_norm
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import sow_attention

FREE_IN_EVALUATION = ('dropout_rate',)


class GlobalContext(nn.Module):
  """x + W₂ ReLU(LN(W₁ c)), c an attentive average of x's pixels.

  Attributes:
    inner_channels: Width between W₁ and W₂.
  """

  inner_channels: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    """Adds the context to every pixel; at the start it is 0."""
    del train
    scores = flatten(conv1x1(1, 'mask')(x))
    weights = gather_weights(scores, positions_inside(extent, x.shape))
    sow_attention(
      self, 'the same for all pixels', jnp.ones_like(scores), weights
    )
    context = weighted_sums(weights, flatten(x))
    y = conv1x1(self.inner_channels, 'reduce')(context[:, None])
    y = nn.relu(layer_norm('layer_norm', at_least_float32(y), 1e-5))
    y = y.astype(x.dtype)
    return x + zero_conv1x1(x.shape[-1], 'expand')(y)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 128,
  dropout_rate: float = 0.1,
) -> BlockHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `BlockHead`.
    inner_channels: See `GlobalContext`; the authors take a quarter or less of
      the block's channels.
    dropout_rate: See `BlockHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('gc', dropout_rate, channels=channels, inner_channels=inner_channels)
  block = GlobalContext(inner_channels)
  return BlockHead(num_classes, channels, dropout_rate, norm_momentum, block)
