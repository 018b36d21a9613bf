"""Optimizers with their schedules, one file each.

An optimizer file holds `create(steps, frozen, *, option=default, …) ->
(transformation, schedule)`, where

  steps           is the number of steps of the whole run;
  frozen          are paths of subtrees of the parameters that no gradient ever
                  reaches, which must not move;
  transformation  is optax's, whose updates are added to the parameters;
  schedule        gives the learning rate by zero-based step, for the log.
"""

import ml_collections
import optax

from emanet_jax import parts
from emanet_jax.errors import UserError


def create_optimizer(
  config: ml_collections.ConfigDict,
  steps: int,
  frozen: tuple[tuple[str, ...], ...] = (),
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimizer of the `optimizer` part of a configuration, checked.

  Args:
    config: With `name` and that optimizer's options.
    steps: See the folder.
    frozen: See the folder.

  Raises:
    UserError: An unknown name or impossible value.
  """
  name, options = parts.chosen(config)
  return parts.OPTIMIZERS.create(name, steps, frozen, **options)


def refuse_negative(**options: float | int) -> None:
  """Raises a UserError for an optimizer's option that is below 0."""
  for key, value in options.items():
    if value < 0:
      raise UserError(f'optimizer.{key} is {value}; it must be ≥ 0')
