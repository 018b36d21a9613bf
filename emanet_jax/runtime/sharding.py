"""The mesh of devices, and which of them holds what.

Three axes: 'data' and 'fsdp' share the images of a batch out, 'space' the rows
of each image; along 'fsdp' large arrays of the state are split besides. A
training step is jitted over the global batch, so batch statistics and the
bases' moving average are global by construction: the compiler inserts the
reductions, and what convolutions need of their neighbours' rows.

Inside `jax.set_mesh(mesh)` the functions below that take no mesh say where
something has to be; outside they do nothing, as with one device.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from emanet_jax.errors import UserError

_AXES = ('data', 'fsdp', 'space')
_IMAGES = ('data', 'fsdp')
_LARGE = 1 << 14  # numbers; to split less saves nothing worth its gathering


def create_mesh(
  devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1, space: int = 1
) -> Mesh:
  """A mesh of the given devices, or of all there are.

  Args:
    devices: In the order of the axes; None: all, placed as their network is.
    fsdp: Parts that large arrays of the state are split into.
    space: Parts that an image's rows are split into.

  Raises:
    UserError: They do not divide the devices; or the parts of an image would
      lie on several processes, each of which reads whole images.
  """
  count = len(devices or jax.devices())
  if fsdp < 1 or space < 1 or count % (fsdp * space):
    raise UserError(
      f'mesh.fsdp is {fsdp} and mesh.space {space}; their product must divide '
      f'the number of devices, {count}'
    )
  shape = (count // (fsdp * space), fsdp, space)
  if devices:
    mesh = Mesh(np.array(devices).reshape(shape), _AXES)
  else:
    mesh = jax.make_mesh(shape, _AXES, axis_types=(AxisType.Auto,) * 3)
  owners = [device.process_index for device in mesh.devices.flat]
  for parts in np.reshape(owners, (-1, space)):
    if len(set(parts)) > 1:
      raise UserError(
        f'mesh.space is {space}: the rows of an image would lie on devices of '
        f'several processes; each has {owners.count(owners[0])}'
      )
  return mesh


def num_shares(mesh: Mesh | AbstractMesh) -> int:
  """Among how many groups of devices the images of a batch are shared out."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis is shared out; whole images, until a step splits rows."""
  return NamedSharding(mesh, PartitionSpec(_IMAGES))


def state_sharding(mesh: Mesh, tree):
  """For each array of a state, how it lies on the devices.

  Large ones are split along their last axis that 'fsdp' divides; all others
  are replicated.

  Args:
    mesh: Of the run.
    tree: Of arrays, or of their shapes.
  """
  parts = mesh.shape['fsdp']

  def place(x):
    axes = [i for i, n in enumerate(x.shape) if n % parts == 0]
    if parts == 1 or math.prod(x.shape) < _LARGE or not axes:
      return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*[None] * axes[-1], 'fsdp'))

  return jax.tree.map(place, tree)


def describe(mesh: Mesh, tree) -> str:
  """The mesh in words, and what of a state each of its devices holds."""
  device = mesh.devices.flat[0]
  told = f'{mesh.size} {device.platform} device(s)'
  if mesh.size == mesh.shape['data']:
    return told
  axes = ' × '.join(f'{name} {n}' for name, n in mesh.shape.items())
  leaves = jax.tree.leaves(tree)
  whole = sum(x.size * x.dtype.itemsize for x in leaves)
  own = sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in leaves
  )
  return (
    f'{told}: {axes}; a device holds {own / 1e6:.1f} MB of the state, of '
    f'{whole / 1e6:.1f} MB'
  )


def gathered(tree):
  """The whole of arrays on every device, of a mesh in use; else as they are.

  Of split parameters, which each layer's products need whole: the compiler
  would split the products otherwise.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return lax.with_sharding_constraint(tree, PartitionSpec())


def split_rows(batch):
  """Images [b, h, w, …] with their rows split along 'space'; unevenly, too.

  Args:
    batch: An array, or several by name.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.shape['space'] == 1:
    return batch
  return lax.with_sharding_constraint(batch, PartitionSpec(_IMAGES, 'space'))


def shares_in_use() -> int:
  """`num_shares` of the mesh in use; 1 without one."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else num_shares(mesh)


def global_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict:
  """Arrays of the global batch from this process's share of the examples."""
  sharding = batch_sharding(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
  }


def local(tree, mesh: Mesh):
  """A state's arrays, whole, on each of this process's devices.

  Args:
    tree: On all devices; each process calls this.
    mesh: Of the run.
  """
  if mesh.shape['fsdp'] > 1:
    tree = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
  own = create_mesh(jax.local_devices())
  if list(mesh.devices.flat) == list(own.devices.flat):
    return tree
  # Of one process, too, where `make_mesh` has them in their network's order.
  copies = jax.tree.map(lambda x: x.addressable_data(0), tree)
  return jax.device_put(copies, replicated(own))


def any_process(flag: bool) -> bool:
  """Whether it is true in any process; all must ask."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def check_batch_size(batch_size: int, accumulation_steps: int, mesh: Mesh):
  """Raises a UserError unless every device gets whole micro-batches."""
  shares = num_shares(mesh)
  parts = shares * accumulation_steps
  if batch_size < 1 or batch_size % parts:
    raise UserError(
      f'train.batch_size is {batch_size}; shared out to {shares} devices, with '
      f'train.accumulation_steps={accumulation_steps}, it must be a multiple '
      f'of {parts}'
    )
