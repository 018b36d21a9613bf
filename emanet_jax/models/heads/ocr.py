"""OCRNet's head: pixels attend to regions that a first prediction makes.

Yuan et al., "Object-Contextual Representations for Semantic Segmentation" (ECCV
2020), in mmsegmentation's form, which runs the first prediction twice a step;
here its running statistics move once.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.gather import gather_weights
from emanet_jax.models.attention.non_local import softmax_weights
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.heads._shared import (
  check,
  check_one_size,
  check_weight,
  classify,
  conv_norm,
)
from emanet_jax.models.outputs import sow_attention, sow_output

FREE_IN_EVALUATION = ('dropout_rate', 'region_weight')


class OCRHead(nn.Module):
  """Soft regions, their features, and each pixel's mixture of these.

  With a first prediction's logits l, on the stage before the last, and features
  x of the last one,

    cₖ = Σᵢ softmaxᵢ(lᵢₖ) xᵢ,   yᵢ = Σₖ softmaxₖ(θ(xᵢ)·φ(cₖ) / √d) g(cₖ),

  a region cₖ a class; θ and φ are two 1×1 convolutions each, g is one, all with
  normalisation and ReLU. What classifies is a 1×1 convolution of y, brought to
  x's width, beside x. The gradient reaches the first prediction through the
  regions, too. Costs n·classes·(channels + 2·d).

  Attributes:
    num_classes: Classes predicted.
    channels: Width of x and before the classifier.
    inner_channels: d.
    region_channels: Width of the first prediction's 3×3 convolution.
    region_weight: Of its loss in training, `regions_loss`; 0: none.
    dropout_rate: Share of whole channels dropped in training, in [0, 1), before
      each classifier on its own.
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  inner_channels: int
  region_channels: int
  region_weight: float
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
    check_one_size('ocr', *features[-2:])
    momentum, given = self.norm_momentum, {'train': train, 'extent': extent}
    conv = conv_norm(self.region_channels, momentum, 'region_conv')
    low = conv(features[-2], **given)
    logits = self._classify(low, train, 'region_classifier')
    if train and self.region_weight:
      sow_output(self, 'regions', logits, self.region_weight)
    x = conv_norm(self.channels, momentum, 'conv_in')(features[-1], **given)
    counted = positions_inside(extent, x.shape)
    gathered = gather_weights(flatten(logits), counted)
    y = self._attend(x, gathered, train)
    y = conv_norm(self.channels, momentum, 'attended', size=1)(y, train=train)
    y = jnp.concatenate([y, x], axis=-1)
    y = conv_norm(self.channels, momentum, 'conv_out', size=1)(y, train=train)
    return self._classify(y, train, 'classifier')

  def _attend(self, x, gathered, train):
    """The y of pixels [b, h, w, c] that attend to regions [b, k, n] of them."""
    regions = weighted_sums(gathered, flatten(x))[:, :, None]

    def projected(value, *names):
      for name in names:
        conv = conv_norm(self.inner_channels, self.norm_momentum, name, size=1)
        value = conv(value, train=train)
      return flatten(value)

    shares = softmax_weights(
      projected(x, 'query1', 'query2'),
      projected(regions, 'key1', 'key2'),
      jnp.ones(regions.shape[:2], bool),
      np.sqrt(self.inner_channels),
    )
    sow_attention(self, 'attention through regions', shares, gathered)
    y = weighted_sums(shares, projected(regions, 'value'))
    return y.reshape(*x.shape[:-1], -1)

  def _classify(self, x, train, name):
    return classify(x, self.num_classes, self.dropout_rate, train, name)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 256,
  region_channels: int = 256,
  region_weight: float = 0.4,
  dropout_rate: float = 0.1,
) -> OCRHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `OCRHead`.
    inner_channels: See `OCRHead`.
    region_channels: See `OCRHead`.
    region_weight: See `OCRHead`; mmsegmentation has 0.4.
    dropout_rate: See `OCRHead`.

  Raises:
    UserError: A value that no such head has.
  """
  widths = {
    'channels': channels,
    'inner_channels': inner_channels,
    'region_channels': region_channels,
  }
  check('ocr', dropout_rate, **widths)
  check_weight('region_weight', region_weight)
  return OCRHead(
    num_classes,
    **widths,
    region_weight=region_weight,
    dropout_rate=dropout_rate,
    norm_momentum=norm_momentum,
  )
