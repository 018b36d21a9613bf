"""The state of training."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from emanet_jax.runtime import sharding


@flax.struct.dataclass
class TrainState:
  """All that a step reads and writes.

  Attributes:
    step: Updates done so far, int32 scalar.
    params: Learnt by gradients.
    model_state: The model's other collections: `batch_stats` and `bases`.
    opt_state: The optimizer's.
  """

  step: Any
  params: Any
  model_state: Any
  opt_state: Any

  @property
  def variables(self) -> dict:
    """What `model.apply` takes."""
    return {'params': self.params, **self.model_state}


def create_state(
  model: nn.Module, tx: optax.GradientTransformation, rng: jax.Array
) -> TrainState:
  """A freshly initialised state; pure, so it can be jitted or eval_shaped."""
  # The image's size does not matter to any parameter's shape.
  variables = dict(model.init({'params': rng}, jnp.zeros((1, 65, 65, 3))))
  params = variables.pop('params')
  variables.pop('intermediates', None)
  return TrainState(
    jnp.zeros((), jnp.int32), params, variables, tx.init(params)
  )


def is_finite(state: TrainState) -> bool:
  """Whether a state holds no NaN or infinity; waits for it.

  Of several processes each looks at what its devices hold, and all get the same
  answer.
  """
  pieces = [
    piece.data
    for leaf in jax.tree.leaves(state)
    for piece in leaf.addressable_shards[
      : 1 if leaf.is_fully_replicated else None
    ]
  ]
  finite = all(np.isfinite(piece).all() for piece in jax.device_get(pieces))
  return not sharding.any_process(not finite)
