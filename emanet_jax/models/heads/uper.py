"""UPerNet's head: a pyramid of grids on top of a feature pyramid.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (ECCV 2018),
3.1, for one task, as mmsegmentation builds it. It wants a backbone without
dilation (`model.backbone.output_stride=32`).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.pyramid import PooledBranches
from emanet_jax.models.heads._shared import (
  check,
  check_grids,
  classify,
  conv_norm,
)
from emanet_jax.models.resize import resize_to

FREE_IN_EVALUATION = ('align_corners', 'dropout_rate')


class UPerHead(nn.Module):
  """All stages' features, coarser ones added to finer; together classified.

  The last stage goes through pyramid pooling and a 3×3, the others through a
  1×1 each. From coarse to fine each is resized and added to the next, and what
  was added to goes through a 3×3. All are brought to the first one's size and
  through one 3×3 more, side by side.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of everything.
    grids: Cells along each side in the pyramid pooling, a branch each.
    align_corners: How features are resized, see `resize_bilinear`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  grids: tuple[int, ...]
  align_corners: bool
  dropout_rate: float
  norm_momentum: float

  output_stage = 0

  @nn.compact
  def __call__(
    self,
    features: tuple[Float[Array, 'b _ _ _'], ...],
    *,
    train: bool,
    extents: tuple[Int[Array, 'b 2'] | None, ...] = (None,) * 4,
  ) -> Float[Array, 'b h w classes']:
    """Takes the backbone's stage features, returns logits at the first's size.

    In training the rng stream 'dropout' is needed unless dropout_rate is 0.
    """
    width, momentum = self.channels, self.norm_momentum
    last = {'train': train, 'extent': extents[-1]}
    branches = PooledBranches(
      width, self.grids, self.align_corners, momentum, name='pyramid'
    )(features[-1], **last)
    x = jnp.concatenate([features[-1], *branches], axis=-1)
    x = conv_norm(width, momentum, 'top')(x, **last)
    levels = [x]
    for i in reversed(range(len(features) - 1)):
      lateral = conv_norm(width, momentum, f'lateral{i + 1}', size=1)
      finer = lateral(features[i], train=train)
      x = finer + self._resize(finer, x, extents[i], extents[i + 1])
      conv = conv_norm(width, momentum, f'fpn{i + 1}')
      levels.insert(0, conv(x, train=train, extent=extents[i]))
    levels = [
      self._resize(levels[0], x, extents[0], extent)
      for x, extent in zip(levels, extents, strict=True)
    ]
    x = jnp.concatenate(levels, axis=-1)
    conv = conv_norm(width, momentum, 'conv_cat')
    x = conv(x, train=train, extent=extents[0])
    return classify(x, self.num_classes, self.dropout_rate, train)

  def _resize(self, other, x, other_extent, extent):
    return resize_to(
      other, x, other_extent, extent, align_corners=self.align_corners
    )


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  grids: Sequence[int] = (1, 2, 3, 6),
  align_corners: bool = False,
  dropout_rate: float = 0.1,
) -> UPerHead:
  """The head of a configuration, checked; arguments as of `UPerHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('uper', dropout_rate, channels=channels)
  check_grids(grids)
  return UPerHead(
    num_classes,
    channels,
    tuple(grids),
    align_corners,
    dropout_rate,
    norm_momentum,
  )
