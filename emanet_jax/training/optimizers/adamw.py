"""AdamW with a linear warm-up and a cosine or polynomial decay.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), as
optax computes it, which is torch.optim.AdamW.
"""

from collections.abc import Sequence

import optax

from emanet_jax.errors import UserError
from emanet_jax.training import parameter_groups, schedules
from emanet_jax.training.optimizers import refuse_negative

SCHEDULES = ('cosine', 'poly')


def create(
  steps: int,
  frozen: Sequence[tuple[str, ...]],
  *,
  learning_rate: float = 3e-4,
  weight_decay: float = 0.01,
  beta1: float = 0.9,
  beta2: float = 0.999,
  epsilon: float = 1e-8,
  schedule: str = 'cosine',
  poly_power: float = 1.0,
  warmup_steps: int = 0,
  clip_norm: float = 0.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimizer of a configuration, checked.

  Args:
    steps: Of the whole run.
    frozen: See `parameter_groups.decayed`.
    learning_rate: At its highest.
    weight_decay: Of convolution kernels alone, times the learning rate.
    beta1: Share of the gradients' mean kept per step, in [0, 1).
    beta2: Of their squares' mean, likewise.
    epsilon: Added to the root of the latter.
    schedule: After the rise: 'cosine' or 'poly', both down to zero.
    poly_power: Exponent of the latter; 1 is linear.
    warmup_steps: Of a linear rise of the rate at the beginning.
    clip_norm: Gradients of a larger global norm are scaled down to it; 0 = off.

  Raises:
    UserError: An impossible value.
  """
  if schedule not in SCHEDULES:
    raise UserError(
      f'optimizer.schedule is {schedule!r}; known are {", ".join(SCHEDULES)}'
    )
  if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
    raise UserError(
      'optimizer.beta1 and optimizer.beta2 must be in [0, 1); got '
      f'{beta1} and {beta2}'
    )
  refuse_negative(
    learning_rate=learning_rate,
    weight_decay=weight_decay,
    epsilon=epsilon,
    poly_power=poly_power,
    clip_norm=clip_norm,
  )
  after = max(steps - warmup_steps, 1)
  decay = (
    optax.cosine_decay_schedule(learning_rate, after)
    if schedule == 'cosine'
    else schedules.poly(learning_rate, after, power=poly_power)
  )
  rate = schedules.warm_up(decay, learning_rate, warmup_steps, steps)
  transformation = optax.chain(
    *([optax.clip_by_global_norm(clip_norm)] if clip_norm else []),
    optax.adamw(
      rate,
      b1=beta1,
      b2=beta2,
      eps=epsilon,
      weight_decay=weight_decay,
      mask=parameter_groups.decayed(frozen),
    ),
  )
  return transformation, rate
