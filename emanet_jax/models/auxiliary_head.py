"""The auxiliary head of PSPNet and its kin: a second loss, deeper in."""

import flax.linen as nn
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.layers import Conv, ConvNorm, torch_default
from emanet_jax.models.norm import at_least_float32


class AuxiliaryHead(nn.Module):
  """3×3 on the last stage but one, dropout, classifier; only for training.

  Zhao et al., "Pyramid Scene Parsing Network" (CVPR 2017), 3.3. Neither the
  paper nor the authors have one; mmsegmentation trains its EMANet with one.

  Attributes:
    num_classes: Classes predicted.
    channels: Width before the classifier.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  dropout_rate: float
  norm_momentum: float

  @nn.compact
  def __call__(
    self, features: tuple[Float[Array, 'b _ _ _'], ...], *, train: bool
  ) -> Float[Array, 'b h w classes']:
    """Takes the backbone's stage features, returns the third's logits."""
    x = ConvNorm(
      self.channels,
      3,
      norm_momentum=self.norm_momentum,
      kernel_init=torch_default,
      name='conv',
    )(features[-2], train=train)
    x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))(
      x, deterministic=not train
    )
    return Conv(
      self.num_classes,
      use_bias=True,
      kernel_init=torch_default,
      name='classifier',
    )(at_least_float32(x))


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int,
  dropout_rate: float,
) -> AuxiliaryHead:
  """The auxiliary head of a configuration, checked."""
  if channels < 1 or not 0 <= dropout_rate < 1:
    raise UserError(
      'model.auxiliary_head needs channels ≥ 1 and dropout_rate in [0, 1); got '
      f'{channels} and {dropout_rate}'
    )
  return AuxiliaryHead(num_classes, channels, dropout_rate, norm_momentum)
