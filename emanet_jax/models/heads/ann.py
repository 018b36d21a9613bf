"""ANNNet's head: Non-local attention to averages over coarse grids.

Zhu et al., "Asymmetric Non-local Neural Networks for Semantic Segmentation"
(ICCV 2019), in mmsegmentation's form.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.non_local import softmax_weights
from emanet_jax.models.attention.products import flatten, weighted_sums
from emanet_jax.models.attention.pyramid import cell_weights, grid_tokens
from emanet_jax.models.heads._shared import (
  check,
  check_grids,
  check_one_size,
  classify,
  conv1x1,
  conv_norm,
  drop_channels,
  zero_conv1x1,
)
from emanet_jax.models.outputs import attention_wanted, sow_attention

FREE_IN_EVALUATION = ('dropout_rate',)


class AsymmetricAttention(nn.Module):
  """Each pixel of one map attends to the cells of another's grids.

  yᵢ = W Σⱼ softmaxⱼ(θᵢ·φⱼ / √d) gⱼ + b over the m cells j of all grids, whose
  keys φ and values g are averages; W and b are 0 at the start. Costs 2·n·m·d.

  Attributes:
    inner_channels: d.
    grids: Cells along each side.
    share_projection: Whether queries and keys have one projection. As in the
      authors' code and mmsegmentation, its running statistics then move twice
      a step.
    norm_momentum: Share of running statistics kept per step.
  """

  inner_channels: int
  grids: tuple[int, ...]
  share_projection: bool
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    query_map: Float[Array, 'b h w c'],
    key_map: Float[Array, 'b h w _'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w c']:
    """Attention of query_map's pixels to key_map's cells, as wide as they."""
    width, momentum = self.inner_channels, self.norm_momentum
    to_key = conv_norm(width, momentum, 'key', size=1)
    to_query = (
      to_key
      if self.share_projection
      else conv_norm(width, momentum, 'query', size=1)
    )
    query = flatten(to_query(query_map, train=train))
    key, value = (
      grid_tokens(x, self.grids, extent)
      for x in (
        to_key(key_map, train=train),
        conv1x1(width, 'value')(key_map),
      )
    )
    all_cells = jnp.ones(key.shape[:2], bool)
    weights = softmax_weights(query, key, all_cells, np.sqrt(width))
    if attention_wanted(self):
      cells = cell_weights(key_map, self.grids, extent)
      sow_attention(self, f'attention to cells, {self.name}', weights, cells)
    y = weighted_sums(weights, value).reshape(*query_map.shape[:-1], -1)
    return zero_conv1x1(query_map.shape[-1], 'out')(y)


class ANNHead(nn.Module):
  """The last stage attends to the one before, then, narrower, to itself.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of the second attention and before the classifier.
    inner_channels: See `AsymmetricAttention`.
    grids: See `AsymmetricAttention`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1), after
      the first attention and before the classifier.
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  inner_channels: int
  grids: tuple[int, ...]
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
    low, x = features[-2:]
    check_one_size('ann', low, x)
    momentum, given = self.norm_momentum, {'train': train, 'extent': extent}
    shared = self.inner_channels, self.grids
    attention = AsymmetricAttention(*shared, False, momentum, name='fusion')
    y = jnp.concatenate([attention(x, low, **given), x], axis=-1)
    fuse = conv_norm(x.shape[-1], momentum, 'fuse', use_relu=False, size=1)
    x = drop_channels(fuse(y, train=train), self.dropout_rate, train)
    x = conv_norm(self.channels, momentum, 'conv_in')(x, **given)
    attention = AsymmetricAttention(*shared, True, momentum, name='context')
    y = jnp.concatenate([attention(x, x, **given), x], axis=-1)
    x = conv_norm(self.channels, momentum, 'conv_out', size=1)(y, train=train)
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 256,
  grids: Sequence[int] = (1, 3, 6, 8),
  dropout_rate: float = 0.1,
) -> ANNHead:
  """The head of a configuration, checked; arguments as of `ANNHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('ann', dropout_rate, channels=channels, inner_channels=inner_channels)
  check_grids(grids)
  return ANNHead(
    num_classes,
    channels,
    inner_channels,
    tuple(grids),
    dropout_rate,
    norm_momentum,
  )
