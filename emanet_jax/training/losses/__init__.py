"""Losses, one file each: the terms of which the training loss is the sum.

A loss file holds `create(num_classes, class_shares, *, option=default, …) ->
(logits, label) → scalar`, where

  num_classes   is the number of classes, or None while it is not known yet;
  class_shares  are the classes' shares of the labelled training pixels,
                float64 [classes], or None likewise;
  logits        are float32 [b, h, w, classes], at the label's size;
  label         is int32 [b, h, w], class indices; 255 is ignored.

Every file has a section of its name in `config.loss`, with its options and a
`weight`: `--config.loss.dice.weight=1`. Terms of weight 0 are not computed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jaxtyping import Float, Float64, Int

from emanet_jax import parts
from emanet_jax.array import Array
from emanet_jax.errors import UserError


def create_loss(
  config: ml_collections.ConfigDict,
  num_classes: int | None = None,
  class_shares: Float64[np.ndarray, ' classes'] | None = None,
) -> Callable[..., dict[str, jax.Array]]:
  """The training loss of the `loss` part of a configuration, checked.

  Args:
    config: A section for each loss.
    num_classes: Of the data set; None: only to check what needs no data.
    class_shares: Their shares of the labelled training pixels; None likewise.

  Returns:
    (logits, label) → each term by name, times its weight.

  Raises:
    UserError: An impossible value, or no term at all.
  """
  terms = {}
  for name, section in config.items():
    options = dict(section)
    weight = options.pop('weight')
    if weight < 0:
      raise UserError(f'loss.{name}.weight is {weight}; it must be ≥ 0')
    term = parts.LOSSES.create(name, num_classes, class_shares, **options)
    if weight:
      terms[name] = weight, term
  if not terms:
    raise UserError(
      'every loss.….weight is 0; give one of '
      f'{", ".join(parts.LOSSES.names())} a weight above 0'
    )

  def loss(
    logits: Float[Array, 'b h w classes'], label: Int[Array, 'b h w']
  ) -> dict[str, Float[Array, '']]:
    return {
      n: weight * term(logits, label) for n, (weight, term) in terms.items()
    }

  return loss


def class_shares(
  report: Mapping[str, Any], split: str
) -> Float64[np.ndarray, ' classes']:
  """Each class's share of the labelled pixels of a prepared split.

  Args:
    report: Of the preparation, see `Dataset.report`.
    split: Its name.
  """
  shares = np.array(list(report['splits'][split]['pixels'].values()))
  return shares / max(shares.sum(), 1e-12)
