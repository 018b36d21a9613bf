"""Averages over the cells of coarse grids, brought back to full size.

Pyramid pooling (Zhao et al., CVPR 2017); with a grid of one cell it is the
image pooling of DeepLabV3 (Chen et al., 2017, 3.3). Cell i of k along n rows
has rows floor(i·n/k) to ceil((i + 1)·n/k) - 1: cells overlap where k does not
divide n, and there may be more cells than rows. A grid of k² cells costs
k·n·c + k²·w·c for the averages and about as much for the way back.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.products import flatten, product
from emanet_jax.models.layers import ConvNorm, torch_default
from emanet_jax.models.resize import interpolate, interpolation


class PooledBranches(nn.Module):
  """For each grid: averages, 1×1 convolution, bilinearly to full size.

  Attributes:
    channels: Width of each branch.
    grids: Cells along each side, a branch each.
    align_corners: Of the way back, see `resize_bilinear`.
    norm_momentum: Share of running statistics kept per step.
  """

  channels: int
  grids: tuple[int, ...]
  align_corners: bool
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> list[Float[Array, 'b h w channels']]:
    """The branches, in the order of the grids."""
    extent = full_extent(x, extent)
    branches = []
    for i, cells in enumerate(self.grids):
      y = ConvNorm(
        self.channels,
        norm_momentum=self.norm_momentum,
        kernel_init=torch_default,
        name=f'branch{i + 1}',
      )(average_cells(x, cells, extent), train=train)
      ways = (
        interpolation(
          jnp.full_like(extent[:, axis], cells),
          extent[:, axis],
          (x.shape[1 + axis], cells),
          self.align_corners,
        )
        for axis in (0, 1)
      )
      branches.append(interpolate(y, *ways))
    return branches


def grid_tokens(
  x: Float[Array, 'b h w c'],
  grids: tuple[int, ...],
  extent: Int[Array, 'b 2'] | None,
) -> Float[Array, 'b m c']:
  """The averages of all grids' cells, one after the other (Zhu et al., ANN)."""
  extent = full_extent(x, extent)
  tokens = [flatten(average_cells(x, cells, extent)) for cells in grids]
  return jnp.concatenate(tokens, axis=1)


def cell_weights(
  x: Float[Array, 'b h w _'],
  grids: tuple[int, ...],
  extent: Int[Array, 'b 2'] | None,
) -> Float[Array, 'b m n']:
  """The weights of x's positions in the averages of `grid_tokens`."""
  extent, found = full_extent(x, extent), []
  for cells in grids:
    rows, cols = (
      _in_cells(extent[:, axis], cells, x.shape[1 + axis]) for axis in (0, 1)
    )
    both = rows[:, :, None, :, None] & cols[:, None, :, None]
    both = both.reshape(len(x), cells**2, -1)
    found.append(both / jnp.maximum(both.sum(-1, keepdims=True), 1))
  return jnp.concatenate(found, axis=1)


def full_extent(
  x: Float[Array, 'b h w c'], extent: Int[Array, 'b 2'] | None
) -> Int[Array, 'b 2']:
  """The images' extent; without one they fill the batch."""
  if extent is not None:
    return extent
  return jnp.broadcast_to(jnp.array(x.shape[1:3], jnp.int32), (x.shape[0], 2))


def average_cells(
  x: Float[Array, 'b h w c'], cells: int, extent: Int[Array, 'b 2']
) -> Float[Array, 'b cells cells c']:
  """The average of each cell of an image's grid of cells × cells."""
  rows = _in_cells(extent[:, 0], cells, x.shape[1])
  cols = _in_cells(extent[:, 1], cells, x.shape[2])
  # Sums of ones, and the division after them: bfloat16 has no exact 1/65.
  sums = product('bih,bhwc->biwc', rows.astype(x.dtype), x)
  sums = product('bjw,biwc->bijc', cols.astype(sums.dtype), sums)
  count = rows.sum(-1)[:, :, None] * cols.sum(-1)[:, None]
  return (sums / jnp.maximum(count, 1)[..., None]).astype(x.dtype)


def _in_cells(
  length: Int[Array, ' b'], cells: int, size: int
) -> Bool[Array, 'b {cells} {size}']:
  """Which of `size` rows each cell has, of images of `length` rows."""
  cell, length = jnp.arange(cells)[:, None], length[:, None, None]
  row = jnp.arange(size)
  end = -(-(cell + 1) * length // cells)
  return (row >= cell * length // cells) & (row < end)
