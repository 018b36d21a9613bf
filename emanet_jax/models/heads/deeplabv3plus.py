"""DeepLabV3+'s head: the atrous pyramid, refined by features of stride 4.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation" (ECCV 2018), 3.1. The defaults are the paper's decoder on a
ResNet and the authors' resizing (tensorflow/models, research/deeplab);
mmsegmentation's has 512 channels, a 3×3 projection, separable convolutions and
centres that are not aligned.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.atrous_pyramid import (
  atrous_pyramid,
  check_atrous_pyramid,
)
from emanet_jax.models.heads._shared import (
  check,
  classify,
  conv_norm,
  separable_conv_norm,
)
from emanet_jax.models.resize import resize_to

FREE_IN_EVALUATION = ('align_corners', 'dropout_rate', 'rates')


class DeepLabV3PlusHead(nn.Module):
  """Pyramid, to the first stage's size; beside it, two 3×3s; classified.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of the pyramid and of the decoder's convolutions.
    low_channels: What a 1×1 reduces the first stage's features to.
    rates: Dilation of each 3×3 of the pyramid.
    projection_size: Of the pyramid's last convolution: 1 or 3.
    separable: Whether the dilated convolutions and the decoder's are depthwise
      and 1×1, each with normalisation and ReLU.
    align_corners: How the pyramid is resized, see `resize_bilinear`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  low_channels: int
  rates: tuple[int, ...]
  projection_size: int
  separable: bool
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
    x = atrous_pyramid(
      features[-1],
      width,
      self.rates,
      self.projection_size,
      self.separable,
      momentum,
      train=train,
      extent=extents[-1],
    )
    low = conv_norm(self.low_channels, momentum, 'low', size=1)(
      features[0], train=train
    )
    x = resize_to(
      low, x, extents[0], extents[-1], align_corners=self.align_corners
    )
    x = jnp.concatenate([x, low], axis=-1)
    conv = separable_conv_norm if self.separable else conv_norm
    for name in ('decode1', 'decode2'):
      decode = conv(width, momentum, name)
      x = decode(x, train=train, extent=extents[0])
    return classify(x, self.num_classes, self.dropout_rate, train)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 256,
  low_channels: int = 48,
  rates: Sequence[int] = (12, 24, 36),
  projection_size: int = 1,
  separable: bool = False,
  align_corners: bool = True,
  dropout_rate: float = 0.1,
) -> DeepLabV3PlusHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `DeepLabV3PlusHead`.
    low_channels: See `DeepLabV3PlusHead`.
    rates: See `DeepLabV3PlusHead`; half of the defaults belong to output stride
      16.
    projection_size: See `DeepLabV3PlusHead`.
    separable: See `DeepLabV3PlusHead`.
    align_corners: See `DeepLabV3PlusHead`.
    dropout_rate: See `DeepLabV3PlusHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check(
    'deeplabv3plus', dropout_rate, channels=channels, low_channels=low_channels
  )
  check_atrous_pyramid(rates, projection_size)
  return DeepLabV3PlusHead(
    num_classes,
    channels,
    low_channels,
    tuple(rates),
    projection_size,
    separable,
    align_corners,
    dropout_rate,
    norm_momentum,
  )
