"""DeepLabV3's head: atrous spatial pyramid pooling.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation"
(2017), 3.3. Channels, 1×1 projection and rates are the paper's at output stride
8; with 512 channels and a 3×3 projection it is mmsegmentation's, with one 3×3
after the projection torchvision's.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.attention.atrous_pyramid import (
  atrous_pyramid,
  check_atrous_pyramid,
)
from emanet_jax.models.heads._shared import (
  check,
  classify,
  conv_names,
  conv_norm,
)

FREE_IN_EVALUATION = ('dropout_rate', 'rates')


class DeepLabV3Head(nn.Module):
  """Image mean, 1×1 and dilated 3×3s side by side; projected, classified.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of each branch and before the classifier.
    rates: Dilation of each 3×3.
    projection_size: Of the convolution on all branches together: 1 or 3.
    num_convs: Convolutions of 3×3 between it and the classifier.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  rates: tuple[int, ...]
  projection_size: int
  num_convs: int
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
    x = atrous_pyramid(
      features[-1],
      width,
      self.rates,
      self.projection_size,
      False,
      momentum,
      **given,
    )
    for name in conv_names(self.num_convs):
      x = conv_norm(width, momentum, name)(x, **given)
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 256,
  rates: Sequence[int] = (12, 24, 36),
  projection_size: int = 1,
  num_convs: int = 0,
  dropout_rate: float = 0.1,
) -> DeepLabV3Head:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `DeepLabV3Head`.
    rates: See `DeepLabV3Head`; half of the defaults belong to output stride 16.
    projection_size: See `DeepLabV3Head`.
    num_convs: See `DeepLabV3Head`.
    dropout_rate: See `DeepLabV3Head`.

  Raises:
    UserError: A value that no such head has.
  """
  check('deeplabv3', dropout_rate, channels=channels)
  check_atrous_pyramid(rates, projection_size)
  if num_convs < 0:
    raise UserError(f'model.head.num_convs is {num_convs}; it must be ≥ 0')
  return DeepLabV3Head(
    num_classes,
    channels,
    tuple(rates),
    projection_size,
    num_convs,
    dropout_rate,
    norm_momentum,
  )
