"""CCNet's head: criss-cross attention, applied again and again.

Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation" (ICCV
2019), in mmsegmentation's form. The authors' (`speedinghzl/CCNet`) has leaky
ReLUs after the head's convolutions.
"""

import flax.linen as nn
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.criss_cross import (
  all_pairs,
  criss_cross_sums,
  criss_cross_weights,
)
from emanet_jax.models.attention.products import positions_inside
from emanet_jax.models.heads._shared import (
  BlockHead,
  add_scaled,
  check,
  conv1x1,
)
from emanet_jax.models.outputs import attention_wanted, sow_attention

FREE_IN_EVALUATION = ('dropout_rate',)


class CrissCross(nn.Module):
  """γ y + x, y by attention to a pixel's row and column; γ from 0.

  Attributes:
    inner_channels: Width of queries and keys; values are as wide as x.
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
    del train
    query = conv1x1(self.inner_channels, 'query')(x)
    key = conv1x1(self.inner_channels, 'key')(x)
    value = conv1x1(x.shape[-1], 'value')(x)
    counted = positions_inside(extent, x.shape).reshape(x.shape[:-1])
    weights = criss_cross_weights(query, key, counted)
    if attention_wanted(self):
      sow_attention(self, 'attention to rows and columns', all_pairs(weights))
    return add_scaled(self, x, criss_cross_sums(weights, value))


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 64,
  recurrence: int = 2,
  dropout_rate: float = 0.1,
) -> BlockHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `BlockHead`.
    inner_channels: See `CrissCross`.
    recurrence: How often the block is applied, with the same weights; twice,
      and each pixel has reached all others.
    dropout_rate: See `BlockHead`.

  Raises:
    UserError: A value that no such head has.
  """
  widths = {'inner_channels': inner_channels, 'recurrence': recurrence}
  check('cc', dropout_rate, channels=channels, **widths)
  return BlockHead(
    num_classes,
    channels,
    dropout_rate,
    norm_momentum,
    CrissCross(inner_channels),
    recurrence,
  )
