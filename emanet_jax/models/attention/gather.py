"""Averages over all pixels, whose weights the pixels' own scores make.

With k maps of scores,

  yₖ = Σᵢ softmaxᵢ(scoresᵢₖ) valueᵢ:

one map pools the whole image (GCNet, and the unary term of DNLNet), several
gather descriptors of it (A²-Nets) or of its regions (OCRNet). Costs n·k·c.
"""

from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import product, softmax_where


def gather(
  scores: Float[Array, 'b n k'],
  value: Float[Array, 'b n c'],
  counted: Bool[Array, 'b n'],
) -> Float[Array, 'b k c']:
  """The averages over the counted positions; value's dtype.

  The softmax is float32 or wider.
  """
  weights = softmax_where(scores, counted[..., None], 1)
  y = product('bik,bic->bkc', weights.astype(value.dtype), value)
  return y.astype(value.dtype)
