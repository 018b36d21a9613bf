"""Learning rates over a run: zero-based step → rate."""

import jax.numpy as jnp
import optax

from emanet_jax.errors import UserError


def poly(
  learning_rate: float, steps: int, *, power: float, decay_every: int = 0
) -> optax.Schedule:
  """Polynomial decay to zero.

  Args:
    learning_rate: Rate of the first step.
    steps: Steps of the whole run.
    power: Exponent; 0.9 in the paper, 0 keeps the rate constant.
    decay_every: n > 0: the authors' stepped form, lr (1 - s/steps)^power with
      s the one-based step rounded down to a multiple of n (train.py,
      poly_lr_scheduler). 0: the smooth form over the zero-based step.
  """

  def schedule(count):
    step = (count + 1) // decay_every * decay_every if decay_every else count
    return learning_rate * jnp.maximum(1 - step / steps, 0) ** power

  return schedule


def warm_up(
  schedule: optax.Schedule, learning_rate: float, warmup_steps: int, steps: int
) -> optax.Schedule:
  """A linear rise from near zero before a schedule, which starts after it.

  Args:
    schedule: Of the steps after the rise, from 0 on.
    learning_rate: At its end; step s of the rise has the share (s + 1) /
      (warmup_steps + 1) of it.
    warmup_steps: Of the rise; 0: none.
    steps: Of the whole run.

  Raises:
    UserError: The rise takes the whole run, or a negative time.
  """
  if not warmup_steps:
    return schedule
  if not 0 <= warmup_steps < steps:
    raise UserError(
      f'optimizer.warmup_steps is {warmup_steps}; with train.steps={steps} it '
      f'must be 0 to {steps - 1}'
    )
  first = learning_rate / (warmup_steps + 1)
  rise = optax.linear_schedule(first, learning_rate, warmup_steps)
  return optax.join_schedules([rise, schedule], [warmup_steps])
