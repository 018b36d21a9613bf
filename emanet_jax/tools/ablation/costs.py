"""What a network costs, before it is trained."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import ml_collections

from emanet_jax.models import flops
from emanet_jax.models.segmenter import create_model


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one network.

  Attributes:
    parameters: That are learnt, or frozen; not μ⁰ where it is no parameter.
    multiply_adds: Of the convolutions and products of one crop's evaluation.
  """

  parameters: int
  multiply_adds: int

  def millions(self) -> list[str]:
    """Millions of parameters, thousands of millions of multiply-adds."""
    return [f'{self.parameters / 1e6:.3f}', f'{self.multiply_adds / 1e9:.3f}']


def count(config: ml_collections.ConfigDict, num_classes: int) -> Cost:
  """Counts on shapes alone; nothing is compiled or run.

  Args:
    config: Of the run.
    num_classes: Of its data set.

  Raises:
    UserError: No such network can be, or not on crops of this size.
  """
  network = create_model(config.model, num_classes)
  image = jnp.zeros((1, *[config.data.crop_size] * 2, 3))
  variables = dict(jax.eval_shape(network.init, jax.random.key(0), image))
  variables.pop('intermediates', None)
  parameters = jax.tree.leaves(variables['params'])
  return Cost(
    sum(math.prod(leaf.shape) for leaf in parameters),
    flops.of_evaluation(network, variables, image) // 2,
  )
