"""PSPNet's head: averages over grids beside the features they are of.

Zhao et al., "Pyramid Scene Parsing Network" (CVPR 2017), 3.2. The authors'
network (`hszhao/semseg`, `model/pspnet.py`) resizes with align_corners and
mmsegmentation's without; they are else the same.
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

FREE_IN_EVALUATION = ('align_corners', 'dropout_rate')


class PSPHead(nn.Module):
  """The features and their pooled branches through one 3×3, classified.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of each branch and before the classifier.
    grids: Cells along each side, a branch each, finest last.
    align_corners: How branches are resized, see `resize_bilinear`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  grids: tuple[int, ...]
  align_corners: bool
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
    branches = PooledBranches(
      self.channels,
      self.grids,
      self.align_corners,
      self.norm_momentum,
      name='pyramid',
    )(features[-1], train=train, extent=extent)
    x = jnp.concatenate([features[-1], *branches], axis=-1)
    conv = conv_norm(self.channels, self.norm_momentum, 'conv_cat')
    x = conv(x, train=train, extent=extent)
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  grids: Sequence[int] = (1, 2, 3, 6),
  align_corners: bool = True,
  dropout_rate: float = 0.1,
) -> PSPHead:
  """The head of a configuration, checked; arguments as of `PSPHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('psp', dropout_rate, channels=channels)
  check_grids(grids)
  return PSPHead(
    num_classes,
    channels,
    tuple(grids),
    align_corners,
    dropout_rate,
    norm_momentum,
  )
