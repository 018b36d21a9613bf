"""Focal loss: cross entropy that easy pixels hardly count in.

Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), as optax
computes it: each class against the rest, by sigmoids.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Float64, Int

from emanet_jax.array import Array
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError


def create(
  num_classes: int | None,
  class_shares: Float64[np.ndarray, ' classes'] | None,
  *,
  gamma: float = 2.0,
  alpha: Any = None,
) -> Callable[..., jax.Array]:
  """The loss of a configuration, checked.

  Args:
    num_classes: See the folder; not needed.
    class_shares: See the folder; not needed.
    gamma: Exponent ≥ 0 of (1 - p), p the probability of what is true; 0 is
      binary cross entropy.
    alpha: Factor in (0, 1) on pixels of a class, 1 - alpha on all others; None:
      both weigh 1.

  Returns:
    The sum over classes, averaged over the labelled pixels; 0 without any.

  Raises:
    UserError: An impossible value.
  """
  del num_classes, class_shares
  if gamma < 0:
    raise UserError(f'loss.focal.gamma is {gamma}; it must be ≥ 0')
  # Of no type in the configuration, since None is its default.
  is_share = isinstance(alpha, int | float) and 0 < alpha < 1
  if alpha is not None and not is_share:
    raise UserError(f'loss.focal.alpha is {alpha!r}; it must be in (0, 1)')

  def loss(
    logits: Float[Array, 'b h w classes'], label: Int[Array, 'b h w']
  ) -> Float[Array, '']:
    valid = label != IGNORE_LABEL
    target = jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
    by_class = optax.losses.sigmoid_focal_loss(
      logits, target, alpha=alpha, gamma=gamma
    )
    total = jnp.where(valid, by_class.sum(axis=-1), 0).sum()
    return total / jnp.maximum(valid.sum(), 1)

  return loss
