"""Averages over all pixels, whose weights the pixels' own scores make.

With k maps of scores,

  yₖ = Σᵢ softmaxᵢ(scoresᵢₖ) valueᵢ:

one map pools the whole image (GCNet, and the unary term of DNLNet), several
gather descriptors of it (A²-Nets) or of its regions (OCRNet). Costs n·k·c.
"""

from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import softmax_where


def gather_weights(
  scores: Float[Array, 'b n k'], counted: Bool[Array, 'b n']
) -> Float[Array, 'b k n']:
  """The softmaxes over the counted positions, float32 or wider."""
  return softmax_where(scores, counted[..., None], 1).swapaxes(1, 2)
