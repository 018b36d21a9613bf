"""What several heads have in common; no head itself."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.layers import (
  Conv,
  ConvNorm,
  SeparableConvNorm,
  torch_default,
)
from emanet_jax.models.norm import at_least_float32


def classify(
  x: Float[Array, 'b h w c'],
  num_classes: int,
  dropout_rate: float,
  train: bool,
  name: str = 'classifier',
) -> Float[Array, 'b h w classes']:
  """Logits, float32 or wider: dropout of whole channels, 1×1 convolution.

  To be called in a compact method. In training the rng stream 'dropout' is
  needed unless dropout_rate is 0.
  """
  x = drop_channels(x, dropout_rate, train)
  # In bfloat16, classes would tie.
  return conv1x1(num_classes, name)(at_least_float32(x))


def drop_channels(
  x: Float[Array, 'b h w c'], dropout_rate: float, train: bool
) -> Float[Array, 'b h w c']:
  """Dropout of whole channels; to be called in a compact method."""
  dropout = nn.Dropout(dropout_rate, broadcast_dims=(1, 2))
  return dropout(x, deterministic=not train)


def conv_norm(
  features: int,
  norm_momentum: float,
  name: str,
  *,
  size: int = 3,
  dilation: int = 1,
  use_relu: bool = True,
) -> ConvNorm:
  """A head's 3×3 convolution, or 1×1, with normalisation and ReLU."""
  return ConvNorm(
    features,
    size,
    dilation=dilation,
    norm_momentum=norm_momentum,
    use_relu=use_relu,
    kernel_init=torch_default,
    name=name,
  )


def separable_conv_norm(
  features: int, norm_momentum: float, name: str
) -> SeparableConvNorm:
  """A head's 3×3 convolution as a depthwise one and a 1×1."""
  return SeparableConvNorm(
    features, norm_momentum=norm_momentum, kernel_init=torch_default, name=name
  )


def conv_names(count: int) -> list[str]:
  """Of a head's convolutions in a row."""
  return ['conv', *(f'conv{i}' for i in range(2, count + 1))][:count]


def conv1x1(features: int, name: str) -> Conv:
  """A 1×1 convolution alone: a bias, and neither normalisation nor ReLU."""
  return Conv(features, use_bias=True, kernel_init=torch_default, name=name)


def zero_conv1x1(features: int, name: str) -> Conv:
  """One that gives 0 at the start."""
  zeros = nn.initializers.zeros
  return Conv(
    features, use_bias=True, kernel_init=zeros, bias_init=zeros, name=name
  )


def add_scaled(
  module: nn.Module, x: Float[Array, 'b h w c'], y: Float[Array, 'b h w c']
) -> Float[Array, 'b h w c']:
  """γ y + x, γ being the module's parameter `gamma`, 0 at the start."""
  gamma = module.param('gamma', nn.initializers.zeros, ())
  return gamma.astype(x.dtype) * y + x


def check(head: str, dropout_rate: float, **widths: int) -> None:
  """Raises a UserError for a width below 1 or an impossible dropout rate."""
  for key, value in widths.items():
    if value < 1:
      raise UserError(f'of the {head} head, {key} is {value}; it must be ≥ 1')
  if not 0 <= dropout_rate < 1:
    raise UserError(
      f'of the {head} head, dropout_rate is {dropout_rate}; it must be in '
      '[0, 1)'
    )


def check_weight(key: str, weight: float) -> None:
  """Raises a UserError for the weight of a loss below 0."""
  if weight < 0:
    raise UserError(f'model.head.{key} is {weight}; it must be ≥ 0')


def check_grids(grids: Sequence[int]) -> None:
  """Raises a UserError unless there are cells in every grid, and a grid."""
  if not grids or min(grids) < 1:
    raise UserError(
      f'model.head.grids is {tuple(grids)}; give one or more numbers ≥ 1'
    )


def check_one_size(head: str, *features: Float[Array, 'b _ _ _']) -> None:
  """Raises a UserError unless these stages have one resolution."""
  sizes = [x.shape[1:3] for x in features]
  if len(set(sizes)) > 1:
    raise UserError(
      f'the {head} head takes stages of one resolution; these are {sizes}: '
      'take a resnet, and set model.backbone.output_stride to 8'
    )


class BlockHead(nn.Module):
  """An attention block between two 3×3 convolutions, then as mmsegmentation.

  3×3 to `channels`, the block, 3×3 to `channels`; the features and what came of
  them, in this order, through one 3×3 more; dropout, classifier.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of the convolutions.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
    block: (x, *, train, extent) → as x.
    repeats: How often the block is applied, always with the same weights.
  """

  num_classes: int
  channels: int
  dropout_rate: float
  norm_momentum: float
  block: nn.Module
  repeats: int = 1

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
    x = conv_norm(width, momentum, 'conv_in')(features[-1], **given)
    for _ in range(self.repeats):
      x = self.block(x, **given)
    x = conv_norm(width, momentum, 'conv_out')(x, **given)
    x = jnp.concatenate([features[-1], x], axis=-1)
    x = conv_norm(width, momentum, 'conv_cat')(x, **given)
    return classify(x, self.num_classes, self.dropout_rate, train)
