"""A fully convolutional head: convolutions, dropout, classifier.

Long et al., "Fully Convolutional Networks for Semantic Segmentation" (CVPR
2015), as it is used on dilated networks. Without convolutions it is the row
"ResNet-101" of the EMANet paper's tables; with one of 3×3 the usual baseline,
and, on the last stage but one, the auxiliary head of PSPNet and its kin (Zhao
et al., CVPR 2017, 3.3); with two and `concat_input`, mmsegmentation's FCN.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.heads._shared import (
  check,
  classify,
  conv_names,
  conv_norm,
)

FREE_IN_EVALUATION = ('dilation', 'dropout_rate')


class FCNHead(nn.Module):
  """3×3 convolutions on the last features, dropout, classifier.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of the convolutions.
    num_convs: How many there are; 0: the classifier is all.
    concat_input: Whether one 3×3 more takes the features and what came of them
      together, in this order, to `channels`; without dilation.
    dilation: Of the convolutions; 6 in mmsegmentation's `fcn_d6`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  num_convs: int
  concat_input: bool
  dilation: int
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
    given = {'train': train, 'extent': extent}
    x = features[-1]
    for name in conv_names(self.num_convs):
      x = conv_norm(
        self.channels, self.norm_momentum, name, dilation=self.dilation
      )(x, **given)
    if self.concat_input:
      x = jnp.concatenate([features[-1], x], axis=-1)
      x = conv_norm(self.channels, self.norm_momentum, 'conv_cat')(x, **given)
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  num_convs: int = 0,
  concat_input: bool = False,
  dilation: int = 1,
  dropout_rate: float = 0.1,
) -> FCNHead:
  """The head of a configuration, checked; arguments as of `FCNHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('fcn', dropout_rate, channels=channels, dilation=dilation)
  if num_convs < 0:
    raise UserError(
      f'of the fcn head, num_convs is {num_convs}; it must be ≥ 0'
    )
  if concat_input and not num_convs:
    raise UserError(
      'an fcn head with concat_input needs num_convs ≥ 1: without convolutions '
      'it would take its input twice'
    )
  return FCNHead(
    num_classes,
    channels,
    num_convs,
    concat_input,
    dilation,
    dropout_rate,
    norm_momentum,
  )
