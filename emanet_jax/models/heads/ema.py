"""EMANet's head: reduce, EM attention unit, fuse, classify."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.models.ema_unit import EMAUnit, check_unit
from emanet_jax.models.heads._shared import check, classify, conv_norm

FREE_ON_RESUME = ('eval_stages',)
FREE_IN_EVALUATION = ('dropout_rate', 'gradient', 'momentum', 'renormalize')


class EMAHead(nn.Module):
  """3×3 to `channels`, the unit, 3×3 to `out_channels`, dropout, classifier.

  So the paper and the authors. mmsegmentation has one 3×3 more before dropout:
  on the backbone's features beside those, see `concat_input`.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of the EM attention unit: 512, or 256 in the light variant.
    out_channels: Width before the classifier.
    concat_input: Whether a 3×3 convolution takes the backbone's features and
      what came of them together, in this order, to `out_channels`.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
    ema_unit: The EM attention unit, whose options are documented there.
  """

  num_classes: int
  channels: int
  out_channels: int
  concat_input: bool
  dropout_rate: float
  norm_momentum: float
  ema_unit: EMAUnit

  @nn.compact
  def __call__(
    self,
    features: tuple[Float[Array, 'b _ _ _'], ...],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w classes']:
    """Takes the backbone's stage features, returns logits at the last's size.

    Where images are smaller than the batch, extent is theirs in these features.

    In training the rng stream 'dropout' is needed unless dropout_rate is 0.
    """
    momentum = self.norm_momentum
    given = {'train': train, 'extent': extent}
    x = conv_norm(self.channels, momentum, 'conv_in')(features[-1], **given)
    x = self.ema_unit(x, **given)
    x = conv_norm(self.out_channels, momentum, 'conv_out')(x, **given)
    if self.concat_input:
      x = jnp.concatenate([features[-1], x], axis=-1)
      x = conv_norm(self.out_channels, momentum, 'conv_cat')(x, **given)
    return classify(x, self.num_classes, self.dropout_rate, train)

  def frozen_params(self) -> tuple[tuple[str, ...], ...]:
    """Paths, from this module, of parameters that never get a gradient."""
    return tuple(('ema_unit', *path) for path in self.ema_unit.frozen_params())


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  out_channels: int = 256,
  concat_input: bool = False,
  dropout_rate: float = 0.1,
  num_bases: int = 64,
  num_stages: int = 3,
  eval_stages: int = 0,
  momentum: float = 0.9,
  renormalize: bool = False,
  temperature: float = 1.0,
  basis_norm: str = 'l2',
  maintenance: str = 'moving_average',
  gradient: str = 'cut',
) -> EMAHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `EMAHead`.
    out_channels: See `EMAHead`.
    concat_input: See `EMAHead`; mmsegmentation's way.
    dropout_rate: See `EMAHead`.
    num_bases: K.
    num_stages: T in training.
    eval_stages: T in evaluation; 0 = as in training.
    momentum: α, of the bases' moving average.
    renormalize: Normalise the batch mean that enters it; mmsegmentation's way.
    temperature: λ.
    basis_norm: 'l2', 'layer' or 'none'.
    maintenance: 'moving_average', 'parameter' or 'none', see `EMAUnit`.
    gradient: Through EM: 'cut' (the authors), 'last' or 'full', see
      `em_attention`.

  Raises:
    UserError: A value that no such head has.
  """
  unit = EMAUnit(
    num_bases=num_bases,
    num_stages=num_stages,
    eval_stages=eval_stages,
    momentum=momentum,
    renormalize=renormalize,
    temperature=temperature,
    basis_norm=basis_norm,
    maintenance=maintenance,
    gradient=gradient,
    norm_momentum=norm_momentum,
  )
  check_unit(unit)
  check('ema', dropout_rate, channels=channels, out_channels=out_channels)
  return EMAHead(
    num_classes,
    channels,
    out_channels,
    concat_input,
    dropout_rate,
    norm_momentum,
    unit,
  )
