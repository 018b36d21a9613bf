"""Dice loss: overlap of each class's probabilities with its label.

Milletari et al., "V-Net" (2016), as optax computes it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Float64, Int

from emanet_jax.array import Array
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError

_SURE = 1e9  # a logit whose probability is 1


def create(
  num_classes: int | None,
  class_shares: Float64[np.ndarray, ' classes'] | None,
  *,
  smooth: float = 1.0,
  over_batch: bool = False,
  ignore_background: bool = False,
) -> Callable[..., jax.Array]:
  """The loss of a configuration, checked.

  Args:
    num_classes: See the folder; not needed.
    class_shares: See the folder; not needed.
    smooth: Added to overlap and size, in pixels, > 0: a class that is neither
      labelled nor predicted then costs nothing.
    over_batch: Whether overlaps are of the whole batch, not of each image.
    ignore_background: Whether the first class is left out.

  Returns:
    The mean over classes, and images, of 1 - (I + smooth) / ((P + T) / 2 +
    smooth), where I sums a class's probabilities over its pixels, P over all
    labelled ones, and T counts its pixels; in [0, 1].

  Raises:
    UserError: An impossible value.
  """
  del num_classes, class_shares
  if smooth <= 0:
    raise UserError(f'loss.dice.smooth is {smooth}; it must be > 0')

  def loss(
    logits: Float[Array, 'b h w classes'], label: Int[Array, 'b h w']
  ) -> Float[Array, '']:
    # Ignored pixels are sure to be of one class more, which is then left out.
    ignored = (label == IGNORE_LABEL)[..., None]
    classes = logits.shape[-1]
    logits = jnp.where(ignored, -_SURE, logits)
    void = jnp.where(ignored, _SURE, -_SURE).astype(logits.dtype)
    logits = jnp.concatenate([logits, void], axis=-1)
    target = jnp.where(label == IGNORE_LABEL, classes, label)
    by_class = optax.losses.dice_loss(
      logits,
      jax.nn.one_hot(target, classes + 1, dtype=logits.dtype),
      smooth=smooth,
      axis=(0, 1, 2) if over_batch else (1, 2),
      reduction='none',
    )[..., :classes]
    return by_class[..., int(ignore_background) :].mean()

  return loss
