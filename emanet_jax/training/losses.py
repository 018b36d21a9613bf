"""Per-pixel cross entropy and what it is averaged over."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from emanet_jax.array import Array
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError


def segmentation_loss(
  logits: Float[Array, 'b h w classes'],
  label: Int[Array, 'b h w'],
  *,
  average: str = 'all',
  label_smoothing: float = 0.0,
  ohem_threshold: float = 0.0,
  ohem_min_kept: int = 100_000,
) -> Float[Array, '']:
  """Softmax cross entropy of the labelled pixels.

  Args:
    logits: At the label's size, float32.
    label: Class indices below the number of classes; 255 is ignored.
    average: 'all' divides the sum by the number of all pixels, the ignored
      ones included, as the authors do; 'valid' by the number of pixels that
      count (labelled, and kept by OHEM).
    label_smoothing: Share of the target spread over all classes, in [0, 1).
    ohem_threshold: Online hard example mining (Shrivastava et al., 2016): only
      pixels whose true class gets a probability below this count; 0 = off.
    ohem_min_kept: Hardest pixels of the batch that count in any case; under
      gradient accumulation, of each micro-batch.

  Returns:
    The loss, a float32 scalar; 0 where nothing is labelled.
  """
  valid = label != IGNORE_LABEL
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  # A selection: the gradient of an indexing would be a scatter.
  classes = jnp.arange(logits.shape[-1], dtype=label.dtype)
  is_true = label[..., None] == classes
  log_true = jnp.where(is_true, log_probs, 0).sum(axis=-1)
  loss = -log_true
  if label_smoothing:
    uniform = -log_probs.mean(axis=-1)
    loss = (1 - label_smoothing) * loss + label_smoothing * uniform
  kept = valid
  if ohem_threshold:
    kept = _hard_pixels(log_true, valid, ohem_threshold, ohem_min_kept)
  total = jnp.where(kept, loss, 0).sum()
  if average == 'all':
    return total / label.size
  return total / jnp.maximum(kept.sum(), 1)


def _hard_pixels(log_true, valid, threshold, min_kept):
  """The pixels OHEM keeps: below the threshold, or among the hardest."""
  probability = jax.lax.stop_gradient(jnp.exp(log_true))
  probability = jnp.where(valid, probability, jnp.inf)
  ranked = jnp.sort(probability.ravel())
  rank = min(max(min_kept, 1), ranked.size) - 1
  limit = ranked[rank] if min_kept else -jnp.inf
  return valid & ((probability < threshold) | (probability <= limit))


def check_loss(*, average, label_smoothing, ohem_threshold, ohem_min_kept):
  """Raises a UserError for options of `segmentation_loss` out of range."""
  if average not in ('all', 'valid'):
    raise UserError(f"loss.average is {average!r}; known are 'all', 'valid'")
  if not 0 <= label_smoothing < 1:
    raise UserError(
      f'loss.label_smoothing is {label_smoothing}; it must be in [0, 1)'
    )
  if not 0 <= ohem_threshold <= 1:
    raise UserError(
      f'loss.ohem_threshold is {ohem_threshold}; it must be in [0, 1]'
    )
  if ohem_min_kept < 0:
    raise UserError(f'loss.ohem_min_kept is {ohem_min_kept}; it must be ≥ 0')
