"""SegFormer's head: all stages' features side by side, by 1×1s alone.

Xie et al., "SegFormer" (NeurIPS 2021), 3.2, as mmsegmentation builds it; the
authors' has biases instead of the first normalisations and ReLUs, and takes the
stages in the opposite order. It is made for the backbone `mit`.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.heads._shared import check, classify, conv_norm
from emanet_jax.models.resize import resize_to

FREE_IN_EVALUATION = ('align_corners', 'dropout_rate')


class SegFormerHead(nn.Module):
  """Each stage through a 1×1 and to the first's size; one 1×1 on all.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of each 1×1.
    align_corners: How stages are resized, see `resize_bilinear`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
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
    levels = []
    for i, (x, extent) in enumerate(zip(features, extents, strict=True)):
      x = conv_norm(width, momentum, f'stage{i + 1}', size=1)(x, train=train)
      levels.append(
        resize_to(
          features[0], x, extents[0], extent, align_corners=self.align_corners
        )
      )
    x = jnp.concatenate(levels, axis=-1)
    x = conv_norm(width, momentum, 'fuse', size=1)(x, train=train)
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 256,
  align_corners: bool = False,
  dropout_rate: float = 0.1,
) -> SegFormerHead:
  """The head of a configuration, checked; arguments as of `SegFormerHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('segformer', dropout_rate, channels=channels)
  return SegFormerHead(
    num_classes, channels, align_corners, dropout_rate, norm_momentum
  )
