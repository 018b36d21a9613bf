"""What several heads have in common; no head itself."""

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
  x = nn.Dropout(dropout_rate, broadcast_dims=(1, 2))(
    x, deterministic=not train
  )
  # In bfloat16, classes would tie.
  return Conv(num_classes, use_bias=True, kernel_init=torch_default, name=name)(
    at_least_float32(x)
  )


def conv_norm(
  features: int,
  norm_momentum: float,
  name: str,
  *,
  size: int = 3,
  separable: bool = False,
) -> ConvNorm | SeparableConvNorm:
  """A head's 3×3 convolution, or 1×1, with normalisation and ReLU."""
  return (SeparableConvNorm if separable else ConvNorm)(
    features,
    size,
    norm_momentum=norm_momentum,
    kernel_init=torch_default,
    name=name,
  )


def conv_names(count: int) -> list[str]:
  """Of a head's convolutions in a row."""
  return ['conv', *(f'conv{i}' for i in range(2, count + 1))][:count]


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
  """

  num_classes: int
  channels: int
  dropout_rate: float
  norm_momentum: float
  block: nn.Module

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
    x = self.block(x, **given)
    x = conv_norm(width, momentum, 'conv_out')(x, **given)
    x = jnp.concatenate([features[-1], x], axis=-1)
    x = conv_norm(width, momentum, 'conv_cat')(x, **given)
    return classify(x, self.num_classes, self.dropout_rate, train)
