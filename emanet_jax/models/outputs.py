"""What a network gives beside its logits.

A head with several outputs, or with a loss of its own, sows them for training,
which adds their losses up without knowing the head; nothing of the kind is sown
outside training. A head with attention between positions sows its weights for
whoever asks for them: neither training nor evaluation does, or pays for it.
"""

import flax.linen as nn
import jax
from jaxtyping import Float

from emanet_jax.array import Array

# Collections that training makes mutable and takes out again.
OUTPUTS, LOSSES = 'outputs', 'losses'
# The collection to be made mutable by who wants to see attention.
ATTENTION = 'attention'


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


def attention_wanted(module: nn.Module) -> bool:
  """Whether weights of attention are sown: what only these need is not made."""
  wanted = module.is_mutable_collection(ATTENTION)
  return wanted and not module.is_initializing()


def sow_attention(
  module: nn.Module, name: str, *factors: Float[Array, 'b _ _']
) -> None:
  """Gives whoever wants to see it a block's attention between positions.

  Args:
    module: Whose attention it is; applied again, it sows again.
    name: In plain words, as it is printed above a map. Each its own in the
      whole network.
    *factors: Matrices whose product W [b, n, n] says with which weight each
      position j of the head's features, row by row, enters what position i
      receives: one [b, n, n], or those of a detour, [b, n, k] … [b, k, n].
  """
  if attention_wanted(module):
    module.sow(ATTENTION, name, factors)
