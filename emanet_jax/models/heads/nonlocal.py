"""The Non-local block in a segmentation head, as mmsegmentation builds it.

Wang et al., "Non-local Neural Networks" (CVPR 2018), put the block into
backbones for video and gave no head for segmentation.
"""

from emanet_jax.errors import UserError
from emanet_jax.models.attention.non_local import PAIRWISE, NonLocal
from emanet_jax.models.heads._shared import BlockHead, check

FREE_IN_EVALUATION = ('dropout_rate',)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  inner_channels: int = 256,
  pairwise: str = 'softmax',
  use_scale: bool = True,
  dropout_rate: float = 0.1,
) -> BlockHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `BlockHead`.
    inner_channels: Width of queries, keys and values.
    pairwise: 'softmax' or 'dot', see `models/attention/non_local.py`.
    use_scale: Whether the softmax's products are divided by the root of
      inner_channels: the authors' code and mmsegmentation do, the paper not.
    dropout_rate: See `BlockHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check(
    'nonlocal', dropout_rate, channels=channels, inner_channels=inner_channels
  )
  if pairwise not in PAIRWISE:
    raise UserError(
      f'model.head.pairwise is {pairwise!r}; known are {PAIRWISE}'
    )
  block = NonLocal(inner_channels, pairwise, use_scale, norm_momentum)
  return BlockHead(num_classes, channels, dropout_rate, norm_momentum, block)
