"""The authors' SGD: three parameter groups and a poly schedule."""

import jax
import jax.numpy as jnp
import optax

from emanet_jax.errors import UserError


def poly_schedule(
  learning_rate: float, steps: int, *, power: float, decay_every: int
) -> optax.Schedule:
  """Polynomial decay to zero.

  Args:
    learning_rate: Rate of the first step.
    steps: Steps of the whole run.
    power: Exponent; 0.9 in the paper, 0 keeps the rate constant.
    decay_every: n > 0: the authors' stepped form, lr (1 - s/steps)^power with
      s the one-based step rounded down to a multiple of n (train.py,
      poly_lr_scheduler). 0: the smooth form over the zero-based step.

  Returns:
    Zero-based step → learning rate.
  """

  def schedule(count):
    step = (count + 1) // decay_every * decay_every if decay_every else count
    return learning_rate * jnp.maximum(1 - step / steps, 0) ** power

  return schedule


def create_optimizer(
  schedule: optax.Schedule,
  *,
  momentum: float,
  weight_decay: float,
  bias_multiplier: float,
  frozen: tuple[tuple[str, ...], ...] = (),
) -> optax.GradientTransformation:
  """SGD with momentum, PyTorch's form, over three groups of parameters.

  Convolution kernels are decayed; biases, of convolutions and normalisations,
  learn `bias_multiplier` times as fast; scales are neither. The decay enters
  before the momentum and the rate after it, as in torch.optim.SGD.

  Args:
    schedule: Zero-based step → learning rate.
    momentum: Of the velocity, in [0, 1).
    weight_decay: L2 coefficient on kernels.
    bias_multiplier: Of the learning rate, on biases.
    frozen: Paths of subtrees that no gradient reaches. They are not decayed
      either, hence never move: PyTorch's SGD skips parameters without
      gradient, and a plain decay would shrink them to nothing.

  Raises:
    UserError: momentum or weight_decay out of range.
  """
  if not 0 <= momentum < 1 or weight_decay < 0:
    raise UserError(
      'optimizer.momentum must be in [0, 1) and optimizer.weight_decay ≥ 0; '
      f'got {momentum} and {weight_decay}'
    )

  def is_decayed(path, _):
    keys = tuple(k.key for k in path)
    below_frozen = any(keys[: len(f)] == f for f in frozen)
    return keys[-1] == 'kernel' and not below_frozen

  def is_bias(path, _):
    return path[-1].key == 'bias'

  def mask(rule):
    return lambda params: jax.tree.map_with_path(rule, params)

  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask(is_decayed)),
    optax.trace(momentum),
    optax.masked(optax.scale(bias_multiplier), mask(is_bias)),
    optax.scale_by_learning_rate(schedule),
  )
