"""The authors' SGD: momentum, three parameter groups, a poly rate."""

from collections.abc import Sequence

import optax

from emanet_jax.errors import UserError
from emanet_jax.training import parameter_groups, schedules
from emanet_jax.training.optimizers import refuse_negative


def create(
  steps: int,
  frozen: Sequence[tuple[str, ...]],
  *,
  learning_rate: float = 9e-3,
  bias_multiplier: float = 2.0,
  momentum: float = 0.9,
  weight_decay: float = 1e-4,
  poly_power: float = 0.9,
  decay_every: int = 10,
  warmup_steps: int = 0,
  clip_norm: float = 0.0,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """SGD with momentum, PyTorch's form, over three groups of parameters.

  Convolution kernels are decayed; biases, of convolutions and normalisations,
  learn `bias_multiplier` times as fast; scales are neither. The decay enters
  before the momentum and the rate after it, as in torch.optim.SGD.

  Args:
    steps: Of the whole run.
    frozen: See `parameter_groups.decayed`.
    learning_rate: At its highest.
    bias_multiplier: Of the learning rate, on every bias.
    momentum: Of the velocity, in [0, 1).
    weight_decay: L2 coefficient on convolution kernels alone.
    poly_power: See `schedules.poly`.
    decay_every: Steps between changes of the rate; 0 = smooth.
    warmup_steps: Of a linear rise of the rate at the beginning.
    clip_norm: Gradients of a larger global norm are scaled down to it; 0 = off.

  Raises:
    UserError: An impossible value.
  """
  if not 0 <= momentum < 1 or weight_decay < 0:
    raise UserError(
      'optimizer.momentum must be in [0, 1) and optimizer.weight_decay ≥ 0; '
      f'got {momentum} and {weight_decay}'
    )
  refuse_negative(
    learning_rate=learning_rate,
    bias_multiplier=bias_multiplier,
    poly_power=poly_power,
    decay_every=decay_every,
    clip_norm=clip_norm,
  )
  schedule = schedules.warm_up(
    schedules.poly(
      learning_rate,
      steps - warmup_steps,
      power=poly_power,
      decay_every=decay_every,
    ),
    learning_rate,
    warmup_steps,
    steps,
  )
  decayed = parameter_groups.decayed(frozen)
  transformation = optax.chain(
    *([optax.clip_by_global_norm(clip_norm)] if clip_norm else []),
    optax.add_decayed_weights(weight_decay, decayed),
    optax.trace(momentum),
    optax.masked(optax.scale(bias_multiplier), parameter_groups.biases),
    optax.scale_by_learning_rate(schedule),
  )
  return transformation, schedule
