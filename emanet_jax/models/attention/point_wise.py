"""Point-wise spatial attention (Zhao et al., PSANet, ECCV 2018).

Each position p predicts a score m(p → q) for every offset q - p of a mask; what
lies outside of the mask scores 0. With features r,

  collect:     yₚ = Σ_q softmax_q(m(p → q)) r_q,
  distribute:  y_q = Σₚ softmaxₚ(m(p → q)) rₚ.

Scores of n positions and M offsets cost n·min(M, 4·n)·c, as only offsets are
made that some position has, and either sum n²·c.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from emanet_jax.array import Array
from emanet_jax.models.attention.products import product, softmax_where


def collect_weights(
  scores: Float[Array, 'b n n'], counted: Bool[Array, 'b n']
) -> Float[Array, 'b n n']:
  """Weights [b, p, q] of the collecting sums over the counted positions q."""
  return softmax_where(scores, counted[:, None], 2)


def distribute_weights(
  scores: Float[Array, 'b n n'], counted: Bool[Array, 'b n']
) -> Float[Array, 'b n n']:
  """Weights [b, q, p] of the distributing sums over the counted positions p."""
  return softmax_where(scores, counted[..., None], 1).swapaxes(1, 2)


def pair_scores(
  x: Float[Array, 'b h w c'], kernel: Float[Array, 'rows cols c']
) -> Float[Array, 'b n n']:
  """m(p → q), the scores that x's positions p give to all positions q.

  Args:
    x: Features.
    kernel: Of a mask of rows × cols offsets, the middle one (of an even number
      the first of both) being none: their weights of x's channels.

  Returns:
    Scores [b, p, q], float32 or wider.
  """
  batch, height, width, _ = x.shape
  kernel = kernel[_within(kernel.shape[0], height)]
  kernel = kernel[:, _within(kernel.shape[1], width)].astype(x.dtype)
  scores = _by_target(product('byxc,ijc->bxjyi', x, kernel))
  scores = _by_target(scores.transpose(0, 3, 4, 1, 2))  # [b, y, y', x, x']
  scores = scores.transpose(0, 1, 3, 2, 4)
  return scores.reshape(batch, height * width, height * width)


def _within(offsets: int, length: int) -> slice:
  """Of the offsets of a mask, those between positions of a side."""
  middle = (offsets - 1) // 2
  return slice(max(middle - length + 1, 0), middle + length)


def _by_target(
  scores: Float[Array, '*b length offsets'],
) -> Float[Array, '*b length length']:
  """For each position the scores of all positions; 0 without an offset."""
  *batch, length, offsets = scores.shape
  if length == 1:
    return scores
  middle = (offsets - 1) // 2
  pads = length - 1 - middle, length - offsets + middle
  scores = jnp.pad(scores, [(0, 0)] * (1 + len(batch)) + [pads])
  # Row p has offsets -(length - 1) to length - 1, of which it wants those from
  # -p. Read in rows shorter by one, each begins one further to the left.
  scores = scores.reshape(*batch, -1)[..., length - 1 : -1]
  scores = scores.reshape(*batch, length, 2 * length - 2)
  return scores[..., :length]
