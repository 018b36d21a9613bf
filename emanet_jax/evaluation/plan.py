"""Which images this process evaluates, in which batches, before any is read."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emanet_jax.data.input import pipeline
from emanet_jax.inference import batching
from emanet_jax.inference.batching import Batch
from emanet_jax.runtime import sharding


@dataclasses.dataclass(frozen=True)
class Plan:
  """A process's share of a split.

  Attributes:
    images: Positions in the split.
    batches: Of positions in `images`.
    mesh: This process's devices.
  """

  images: Sequence[int]
  batches: Sequence[Batch]
  mesh: Mesh

  @property
  def num_shapes(self) -> int:
    """Each is compiled once a scale."""
    return len({batch.shape for batch in self.batches})

  def __str__(self) -> str:
    if not self.batches:
      return 'no shape'
    (height, width), places = self._largest.shape, self._largest.places
    return (
      f'{self.num_shapes} shape(s), each compiled once a scale; the largest '
      f'batch: {places} of {width}×{height}'
    )

  @property
  def _largest(self) -> Batch:
    return max(self.batches, key=lambda b: b.places * b.shape[0] * b.shape[1])

  def largest(self) -> dict[str, jax.ShapeDtypeStruct]:
    """What the batch of most pixels holds; there must be images."""
    most = self._largest
    split = sharding.batch_sharding(self.mesh)
    arrays = {
      'image': ((*most.shape, 3), jnp.uint8),
      'size': ((2,), jnp.int32),
      'label': (most.shape, jnp.uint8),
    }
    return {
      key: jax.ShapeDtypeStruct((most.places, *shape), dtype, sharding=split)
      for key, (shape, dtype) in arrays.items()
    }


def plan_split(
  model: nn.Module,
  dataset: pipeline.Dataset,
  split: str,
  *,
  batch_size: int,
  shape_step: int,
  space: int = 1,
) -> Plan:
  """Divides a split among processes, and this one's share into batches.

  Args:
    model: The network.
    dataset: The prepared data set.
    split: Its split.
    batch_size: See `plan_batches`.
    shape_step: See `plan_batches`.
    space: Parts that each image's rows are split into.

  Raises:
    UserError: This process's devices cannot share rows out like that.
  """
  mesh = sharding.create_mesh(jax.local_devices(), space=space)
  images = range(
    jax.process_index(), dataset.num_examples(split), jax.process_count()
  )
  batches = batching.plan_batches(
    pipeline.image_sizes(dataset, split, images),
    batch_size=batch_size,
    stride=model.output_stride,
    shape_step=shape_step,
    devices=sharding.num_shares(mesh),
  )
  return Plan(images, batches, mesh)
