"""What a network gives to training beside its logits.

A head with several outputs, or with a loss of its own, sows them; training adds
their losses up without knowing the head. Nothing is sown outside training.
"""

import flax.linen as nn
import jax
from jaxtyping import Float

from emanet_jax.array import Array

# Collections that training makes mutable and takes out again.
OUTPUTS, LOSSES = 'outputs', 'losses'


def sow_output(
  module: nn.Module,
  name: str,
  logits: Float[Array, 'b h w classes'],
  weight: float,
) -> None:
  """Gives training further logits, whose loss is added to the main one's.

  Args:
    module: Whose output it is, in training.
    name: Of the loss in logs: NAME_loss. Each its own in the whole network, and
      no name of a loss's file.
    logits: Of any resolution: upsampled like the main ones.
    weight: Of their loss.
  """
  if not module.is_initializing():
    module.sow(OUTPUTS, name, {'logits': logits, 'weight': weight})


def sow_loss(
  module: nn.Module,
  name: str,
  loss: Float[Array, ''] | jax.tree_util.Partial,
  weight: float,
) -> None:
  """Gives training a further loss.

  Args:
    module: Whose loss it is, in training.
    name: In logs: NAME_loss.
    loss: Scalar; or, where the labels take part, a function of them, integers
      [b, h, w], that gives it.
    weight: Of it in the sum.
  """
  if not module.is_initializing():
    module.sow(LOSSES, name, {'loss': loss, 'weight': weight})
