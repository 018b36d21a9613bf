"""Per-pixel softmax cross entropy and what it is averaged over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int

from emanet_jax.array import Array
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError


def create(
  num_classes: int | None,
  class_shares: Float64[np.ndarray, ' classes'] | None,
  *,
  average: str = 'all',
  label_smoothing: float = 0.0,
  ohem_threshold: float = 0.0,
  ohem_min_kept: int = 100_000,
  class_weights: Any = None,
) -> Callable[..., jax.Array]:
  """The loss of a configuration, checked.

  Args:
    num_classes: See the folder.
    class_shares: See the folder.
    average: Over 'all' pixels, as the authors, or the 'valid' ones.
    label_smoothing: Share of the target spread over all classes, in [0, 1).
    ohem_threshold: Online hard example mining: pixels count whose true class
      gets less than this probability; 0 = off.
    ohem_min_kept: Hardest pixels that count in any case, of a micro-batch.
    class_weights: A factor for each class's pixels, (1.0, 2.5, …); 'balanced':
      classes weigh in inverse proportion to their pixels in the training split,
      so that a pixel weighs 1 on average; None: all weigh 1.

  Raises:
    UserError: An impossible value.
  """
  if average not in ('all', 'valid'):
    raise UserError(
      f"loss.cross_entropy.average is {average!r}; known are 'all', 'valid'"
    )
  for key, value, known in (
    ('label_smoothing', label_smoothing, 0 <= label_smoothing < 1),
    ('ohem_threshold', ohem_threshold, 0 <= ohem_threshold <= 1),
    ('ohem_min_kept', ohem_min_kept, ohem_min_kept >= 0),
  ):
    if not known:
      limit = {'label_smoothing': 'in [0, 1)', 'ohem_min_kept': '≥ 0'}
      raise UserError(
        f'loss.cross_entropy.{key} is {value}; it must be '
        f'{limit.get(key, "in [0, 1]")}'
      )
  weights = _class_weights(class_weights, num_classes, class_shares)

  def loss(
    logits: Float[Array, 'b h w classes'], label: Int[Array, 'b h w']
  ) -> Float[Array, '']:
    return cross_entropy(
      logits,
      label,
      average=average,
      label_smoothing=label_smoothing,
      ohem_threshold=ohem_threshold,
      ohem_min_kept=ohem_min_kept,
      class_weights=weights,
    )

  return loss


def cross_entropy(
  logits: Float[Array, 'b h w classes'],
  label: Int[Array, 'b h w'],
  *,
  average: str = 'all',
  label_smoothing: float = 0.0,
  ohem_threshold: float = 0.0,
  ohem_min_kept: int = 100_000,
  class_weights: Float[Array, ' classes'] | None = None,
) -> Float[Array, '']:
  """Softmax cross entropy of the labelled pixels.

  Args:
    logits: At the label's size, float32.
    label: Class indices below the number of classes; 255 is ignored.
    average: 'all' divides the sum by the number of all pixels, the ignored
      ones included, as the authors do; 'valid' by the number of pixels that
      count (labelled, and kept by OHEM), each times its class's weight, as
      PyTorch does.
    label_smoothing: Share of the target spread over all classes, in [0, 1).
    ohem_threshold: Online hard example mining (Shrivastava et al., 2016): only
      pixels whose true class gets a probability below this count; 0 = off.
    ohem_min_kept: Hardest pixels of the batch that count in any case; under
      gradient accumulation, of each micro-batch.
    class_weights: Factor on the loss of each true class's pixels. Under label
      smoothing the spread share is weighted class by class, as PyTorch does.

  Returns:
    The loss, a float32 scalar; 0 where nothing is labelled.
  """
  valid = label != IGNORE_LABEL
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  # A selection: the gradient of an indexing would be a scatter.
  classes = jnp.arange(logits.shape[-1], dtype=label.dtype)
  is_true = label[..., None] == classes
  log_true = jnp.where(is_true, log_probs, 0).sum(axis=-1)
  weight = jnp.ones_like(log_true)
  if class_weights is not None:
    weight = jnp.where(is_true, class_weights, 0).sum(axis=-1)
  loss = -log_true * weight
  if label_smoothing:
    if class_weights is not None:
      log_probs = log_probs * class_weights
    uniform = -log_probs.mean(axis=-1)
    loss = (1 - label_smoothing) * loss + label_smoothing * uniform
  kept = valid
  if ohem_threshold:
    kept = _hard_pixels(log_true, valid, ohem_threshold, ohem_min_kept)
  total = jnp.where(kept, loss, 0).sum()
  if average == 'all':
    return total / label.size
  count = jnp.where(kept, weight, 0).sum()
  return total / jnp.where(count > 0, count, 1)


def _hard_pixels(log_true, valid, threshold, min_kept):
  """The pixels OHEM keeps: below the threshold, or among the hardest."""
  probability = jax.lax.stop_gradient(jnp.exp(log_true))
  probability = jnp.where(valid, probability, jnp.inf)
  ranked = jnp.sort(probability.ravel())
  rank = min(max(min_kept, 1), ranked.size) - 1
  limit = ranked[rank] if min_kept else -jnp.inf
  return valid & ((probability < threshold) | (probability <= limit))


def _class_weights(given, num_classes, class_shares):
  """The weights as an array; None: all weigh 1, or the data are not known."""
  if given is None:
    return None
  if isinstance(given, str):
    if given != 'balanced':
      raise UserError(
        f'loss.cross_entropy.class_weights is {given!r}; give numbers, one a '
        "class, as (1.0, 2.5), or 'balanced'"
      )
    if class_shares is None:
      return None
    # scikit-learn's rule; a class that never occurs weighs nothing.
    present = class_shares > 0
    weights = np.zeros(len(class_shares))
    weights[present] = 1 / (class_shares[present] * present.sum())
    return jnp.asarray(weights, jnp.float32)
  try:
    weights = np.asarray(given, np.float32)
  except (TypeError, ValueError):
    weights = np.array(-1.0)
  if weights.ndim != 1 or not np.all(weights >= 0) or not np.any(weights):
    raise UserError(
      f'loss.cross_entropy.class_weights is {given!r}; give numbers ≥ 0, one a '
      "class and not all 0, as (1.0, 2.5), or 'balanced'"
    )
  if num_classes not in (None, len(weights)):
    raise UserError(
      f'loss.cross_entropy.class_weights has {len(weights)} numbers, but the '
      f'data set has {num_classes} classes'
    )
  return jnp.asarray(weights)
