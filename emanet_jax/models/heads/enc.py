"""EncNet's head: an encoding of the whole image weighs the features' channels.

Zhang et al., "Context Encoding for Semantic Segmentation" (CVPR 2018). As in
mmsegmentation, and in the authors' code (`zhanghang1989/PyTorch-Encoding`), the
encoding also learns to tell which classes an image has, for a loss in training.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.encoding import encode
from emanet_jax.models.attention.products import flatten, positions_inside
from emanet_jax.models.heads._shared import (
  check,
  check_one_size,
  check_weight,
  classify,
  conv1x1,
  conv_norm,
)
from emanet_jax.models.norm import BatchNorm, at_least_float32
from emanet_jax.models.outputs import sow_loss

FREE_IN_EVALUATION = ('dropout_rate',)


class Codes(nn.Module):
  """The mean of an image's encodings, normalised over the code words.

  Attributes:
    num_codes: Code words.
    norm_momentum: Share of running statistics kept per step.
  """

  num_codes: int
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b 1 1 c']:
    """See `attention/encoding.py`; x's dtype."""
    shape = self.num_codes, x.shape[-1]
    bound = 1 / np.sqrt(np.prod(shape))
    codewords = self.param('codewords', _uniform(-bound, bound), shape)
    factors = self.param('scale', _uniform(-1.0, 0.0), shape[:1])
    counted = positions_inside(extent, x.shape)
    codes = encode(flatten(x), codewords, factors, counted)
    # Its statistics are each code word's, over images and channels.
    codes = codes.swapaxes(1, 2)[:, None]
    codes = BatchNorm(self.norm_momentum, name='norm')(codes, train=train)
    return nn.relu(codes).mean(-1)[:, None].astype(x.dtype)


class ContextEncoding(nn.Module):
  """ReLU(x + x g), with gates g of an image's channels; and its encoding.

  Attributes:
    num_codes: See `Codes`.
    norm_momentum: Share of running statistics kept per step.
  """

  num_codes: int
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> tuple[Float[Array, 'b h w c'], Float[Array, 'b 1 1 c']]:
    width, momentum = x.shape[-1], self.norm_momentum
    y = conv_norm(width, momentum, 'project', size=1)(x, train=train)
    codes = Codes(self.num_codes, momentum, name='codes')
    encoding = codes(y, train=train, extent=extent)
    gates = nn.sigmoid(at_least_float32(conv1x1(width, 'fc')(encoding)))
    return nn.relu(x + x * gates.astype(x.dtype)), encoding


class EncHead(nn.Module):
  """3×3, the encoding of the image, classifier.

  Attributes:
    num_classes: Classes predicted.
    channels: Width before the classifier.
    num_codes: See `Codes`.
    use_lateral: Whether the second and third stages, each by a 1×1 convolution,
      join by a 3×3 before the encoding; all three must have one resolution.
    se_weight: Of the loss `se_loss` in training, the binary cross entropy of
      which classes are in the image; 0: nothing predicts them.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  num_codes: int
  use_lateral: bool
  se_weight: float
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
    x = conv_norm(width, momentum, 'conv_in')(features[-1], **given)
    if self.use_lateral:
      check_one_size('enc', *features[-3:])
      laterals = [
        conv_norm(width, momentum, f'lateral{i}', size=1)(lateral, train=train)
        for i, lateral in enumerate(features[-3:-1], start=1)
      ]
      x = jnp.concatenate([x, *laterals], axis=-1)
      x = conv_norm(width, momentum, 'conv_cat')(x, **given)
    context = ContextEncoding(self.num_codes, momentum, name='context')
    x, encoding = context(x, **given)
    if self.se_weight and (train or self.is_initializing()):
      presence = conv1x1(self.num_classes, 'se_fc')(at_least_float32(encoding))
      loss = jax.tree_util.Partial(presence_loss, presence[:, 0, 0])
      sow_loss(self, 'se', loss, self.se_weight)
    return classify(x, self.num_classes, self.dropout_rate, train)


def presence_loss(
  logits: Float[Array, 'b classes'], label: Int[Array, 'b h w']
) -> Float[Array, '']:
  """Binary cross entropy of which classes are in an image, on average.

  What is no class in the labels, such as the ignored 255, counts for none.
  """
  classes = jnp.arange(logits.shape[-1])
  present = (label[..., None] == classes).any((1, 2)).astype(logits.dtype)
  return optax.sigmoid_binary_cross_entropy(logits, present).mean()


def _uniform(low: float, high: float) -> nn.initializers.Initializer:
  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, low, high)

  return init


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  num_codes: int = 32,
  use_lateral: bool = False,
  se_weight: float = 0.2,
  dropout_rate: float = 0.1,
) -> EncHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `EncHead`.
    num_codes: Code words.
    use_lateral: See `EncHead`.
    se_weight: See `EncHead`; mmsegmentation has 0.2.
    dropout_rate: See `EncHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('enc', dropout_rate, channels=channels, num_codes=num_codes)
  check_weight('se_weight', se_weight)
  return EncHead(
    num_classes,
    channels,
    num_codes,
    use_lateral,
    se_weight,
    dropout_rate,
    norm_momentum,
  )
