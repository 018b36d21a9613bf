"""DANet's head: attention between positions and between channels.

Fu et al., "Dual Attention Network for Scene Segmentation" (CVPR 2019). As in
mmsegmentation, and in the authors' code (`junfu1115/DANet`), each branch has a
classifier and a loss of its own in training.
"""

import flax.linen as nn
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.channel import channel_attention
from emanet_jax.models.attention.non_local import TO_ALL, softmax_weights
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.heads._shared import (
  add_scaled,
  check,
  check_weight,
  classify,
  conv1x1,
  conv_norm,
)
from emanet_jax.models.outputs import sow_attention, sow_output

FREE_IN_EVALUATION = ('dropout_rate',)


class PositionAttention(nn.Module):
  """γ y + x, y by attention between all pixels, without a scale; γ from 0.

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
    """Costs n²·(inner_channels + c), and keeps n² for the gradient."""
    del train
    query = flatten(conv1x1(self.inner_channels, 'query')(x))
    key = flatten(conv1x1(self.inner_channels, 'key')(x))
    value = flatten(conv1x1(x.shape[-1], 'value')(x))
    counted = positions_inside(extent, x.shape)
    weights = softmax_weights(query, key, counted, 1.0)
    sow_attention(self, TO_ALL, weights)
    return add_scaled(self, x, weighted_sums(weights, value).reshape(x.shape))


class ChannelAttention(nn.Module):
  """γ y + x, y by attention between all channels; γ from 0."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    del train
    counted = positions_inside(extent, x.shape)
    y = channel_attention(flatten(x), counted).reshape(x.shape)
    return add_scaled(self, x, y)


class DAHead(nn.Module):
  """Two branches of 3×3, attention, 3×3; their sum is classified.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of both branches.
    inner_channels: See `PositionAttention`.
    branch_weight: Of each branch's own loss in training, `pam_loss` and
      `cam_loss`; 0: neither has a classifier.
    dropout_rate: Share of whole channels dropped in training, in [0, 1), before
      each classifier on its own.
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  inner_channels: int
  branch_weight: float
  dropout_rate: float
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    features: tuple[Float[Array, 'b _ _ _'], ...],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w classes']:
    """Takes the backbone's stage features, returns logits at the last's size.

    In training the rng stream 'dropout' is needed unless dropout_rate is 0.
    """
    width, momentum = self.channels, self.norm_momentum
    given = {'train': train, 'extent': extent}
    attentions = {
      'pam': PositionAttention(self.inner_channels, name='pam_block'),
      'cam': ChannelAttention(name='cam_block'),
    }
    branches = []
    for name, attention in attentions.items():
      x = conv_norm(width, momentum, f'{name}_conv_in')(features[-1], **given)
      x = attention(x, **given)
      x = conv_norm(width, momentum, f'{name}_conv_out')(x, **given)
      if self.branch_weight and (train or self.is_initializing()):
        logits = self._classify(x, train, f'{name}_classifier')
        sow_output(self, name, logits, self.branch_weight)
      branches.append(x)
    return self._classify(sum(branches), train, 'classifier')

  def _classify(self, x, train, name):
    return classify(x, self.num_classes, self.dropout_rate, train, name)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 64,
  branch_weight: float = 1.0,
  dropout_rate: float = 0.1,
) -> DAHead:
  """The head of a configuration, checked; arguments as of `DAHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('da', dropout_rate, channels=channels, inner_channels=inner_channels)
  check_weight('branch_weight', branch_weight)
  return DAHead(
    num_classes,
    channels,
    inner_channels,
    branch_weight,
    dropout_rate,
    norm_momentum,
  )
