"""What is made of logits, some rows at a time.

At native size, the logits of all classes are by far the largest array of an
evaluation: 150 classes at 2105² pixels are 2.7 GB an image. So a stripe of rows
is enlarged, made smaller again, to labels or to a sum, and forgotten before the
next.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int, UInt8

from emanet_jax.array import Array
from emanet_jax.inference.views import Seen
from emanet_jax.models.layers import inside
from emanet_jax.models.resize import interpolate

_ROWS = 32  # of a stripe


def label(seen: Seen, shape: tuple[int, int]) -> UInt8[Array, 'b h w']:
  """The class of the greatest logit of each pixel, the first of equal ones.

  Args:
    seen: One look at images.
    shape: Height and width of their batch.

  Returns:
    Classes; 0 outside an image.
  """

  def write(labels, logits, top, _):
    found = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    return lax.dynamic_update_slice_in_dim(labels, found, top, axis=1)

  nothing = jnp.zeros((seen.low.shape[0], *shape), jnp.uint8)
  return _fold(write, nothing, seen)


def add_probabilities(
  total: Float[Array, 'b h w classes'], seen: Seen, size: Int[Array, 'b 2']
) -> Float[Array, 'b h w classes']:
  """Adds the probabilities of one look, in place where `total` is donated.

  Args:
    total: Of earlier looks, zero outside an image.
    seen: One look at images.
    size: Native height and width of each image.
  """
  here = inside(size, total.shape[1:3])[..., None]

  def add(total, logits, top, is_new):
    rows = logits.shape[1]
    old, valid = (
      lax.dynamic_slice_in_dim(x, top, rows, axis=1) for x in (total, here)
    )
    valid &= is_new[:, None, None]
    new = old + jnp.where(valid, jax.nn.softmax(logits), 0)
    return lax.dynamic_update_slice_in_dim(total, new, top, axis=1)

  return _fold(add, total, seen)


def _fold(
  function: Callable[[Array, Array, Array, Bool[Array, ' rows']], Array],
  total: Array,
  seen: Seen,
) -> Array:
  """Total ← function(total, logits of a stripe, its first row, new rows).

  The last stripe ends with the image: some of its rows may have been before.
  """
  height = total.shape[1]
  rows = min(_ROWS, height)
  of_rows = seen.low if seen.up is None else seen.up[0]

  def step(i, total):
    top = jnp.minimum(i * rows, height - rows)
    logits = lax.dynamic_slice_in_dim(of_rows, top, rows, axis=1)
    if seen.up is not None:
      logits = interpolate(seen.low, logits, seen.up[1])
    is_new = top + jnp.arange(rows) >= i * rows
    return function(total, logits, top, is_new)

  return lax.fori_loop(0, -(-height // rows), step, total)
