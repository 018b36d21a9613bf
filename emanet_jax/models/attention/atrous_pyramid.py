"""Atrous spatial pyramid pooling (Chen et al., 2017, 3.3).

The image's mean, a 1×1 and dilated 3×3 convolutions side by side, and one
convolution on all of them. With r rates and w channels a branch it costs
(1 + 9·r)·n·c·w, or separable (1 + r)·n·c·w + 9·r·n·c, and for the projection
(2 + r)·n·w² times its size squared.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.attention.pyramid import PooledBranches
from emanet_jax.models.layers import ConvNorm, SeparableConvNorm, torch_default


def atrous_pyramid(
  x: Float[Array, 'b h w c'],
  channels: int,
  rates: Sequence[int],
  projection_size: int,
  separable: bool,
  norm_momentum: float,
  **given: Any,
) -> Float[Array, 'b h w channels']:
  """The pyramid; to be called in a compact method of a head.

  Args:
    x: Features.
    channels: Width of each branch and of the result.
    rates: Dilation of each 3×3.
    projection_size: Of the convolution on all branches together: 1 or 3.
    separable: Whether the dilated convolutions are depthwise and 1×1.
    norm_momentum: Share of running statistics kept per step.
    **given: `train` and `extent`.
  """
  options = {'norm_momentum': norm_momentum, 'kernel_init': torch_default}
  # Resized from one cell it is the same everywhere, either way of corners.
  pool = PooledBranches(channels, (1,), True, norm_momentum, name='image_pool')
  branches = pool(x, **given)
  conv = ConvNorm(channels, **options, name='branch1')
  branches.append(conv(x, **given))
  for i, rate in enumerate(rates, start=2):
    kind = SeparableConvNorm if separable else ConvNorm
    conv = kind(channels, 3, dilation=rate, **options, name=f'branch{i}')
    branches.append(conv(x, **given))
  project = ConvNorm(channels, projection_size, **options, name='project')
  return project(jnp.concatenate(branches, axis=-1), **given)


def check_atrous_pyramid(rates: Sequence[int], projection_size: int) -> None:
  """Raises a UserError for options that no pyramid has."""
  if not rates or min(rates) < 1:
    raise UserError(
      f'model.head.rates is {tuple(rates)}; give one or more numbers ≥ 1'
    )
  if projection_size not in (1, 3):
    raise UserError(
      f'model.head.projection_size is {projection_size}; it must be 1 or 3'
    )
