"""Data parallelism: one mesh axis, the batch split over it.

Everything else is replicated. Because the training step is jitted over the
global batch, batch statistics and the bases' moving average are global by
construction; the compiler inserts the reductions.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emanet_jax.errors import UserError


def create_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis, 'data', over the given devices or all there are."""
  return Mesh(np.array(devices or jax.devices()), ('data',))


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis is split over the devices."""
  return NamedSharding(mesh, PartitionSpec('data'))


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict:
  """Arrays of the global batch from this process's share of the examples."""
  sharding = batch_sharding(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
  }


def local(tree):
  """Replicated arrays of all processes as arrays of this one's devices."""
  if jax.process_count() == 1:
    return tree
  copies = jax.tree.map(lambda x: x.addressable_data(0), tree)
  return jax.device_put(copies, replicated(create_mesh(jax.local_devices())))


def check_batch_size(batch_size: int, accumulation_steps: int, mesh: Mesh):
  """Raises a UserError unless every device gets whole micro-batches."""
  parts = mesh.size * accumulation_steps
  if batch_size < 1 or batch_size % parts:
    raise UserError(
      f'train.batch_size is {batch_size}; with {mesh.size} devices and '
      f'train.accumulation_steps={accumulation_steps} it must be a multiple '
      f'of {parts}'
    )
