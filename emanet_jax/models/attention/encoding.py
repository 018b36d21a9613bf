"""The encoding layer of EncNet (Zhang et al., CVPR 2018, 3.1).

With k code words dₖ and a factor sₖ of each,

  aᵢₖ = softmaxₖ(sₖ ‖xᵢ - dₖ‖²),   eₖ = Σᵢ aᵢₖ (xᵢ - dₖ):

sums over an image's pixels of what they differ by from their code words. (The
paper writes -s; its code keeps factors below 0.) Differences of all pixels from
all words are never made: both sums are products, of 2·n·k·c in all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import product
from emanet_jax.models.norm import at_least_float32


def encode(
  x: Float[Array, 'b n c'],
  codewords: Float[Array, 'k c'],
  factors: Float[Array, ' k'],
  counted: Bool[Array, 'b n'],
) -> Float[Array, 'b k c']:
  """The eₖ of the counted positions, float32 or wider."""
  x = at_least_float32(x)
  distance = (
    jnp.square(x).sum(-1, keepdims=True)
    - 2 * product('bic,kc->bik', x, codewords)
    + jnp.square(codewords).sum(-1)
  )
  shares = jax.nn.softmax(factors * distance, axis=-1)
  shares = jnp.where(counted[..., None], shares, 0)
  sums = product('bik,bic->bkc', shares, x)
  return sums - shares.sum(1)[..., None] * codewords
