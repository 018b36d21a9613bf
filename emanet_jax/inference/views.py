"""One look at images: at a scale, mirrored or not, whole or through windows.

An image is padded at the bottom and the right by zeros after normalisation, so
that each side is one more than a multiple of the output stride: then the
corners of features lie on corners of the image, as corner-aligned upsampling
wants (the authors' evaluation). Where corners are not aligned, nothing is
padded. Whatever else the batch's shape adds is kept from having any effect.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import lax
from jaxtyping import Float, Int, UInt8

from emanet_jax.array import Array
from emanet_jax.models.layers import inside
from emanet_jax.models.outputs import ATTENTION
from emanet_jax.models.resize import interpolate, interpolation
from emanet_jax.models.segmenter import normalize
from emanet_jax.runtime import sharding

Sizes = Int[Array, 'b 2']


def padded_size(height: int, width: int, stride: int) -> tuple[int, int]:
  """Height and width rounded up to 1 modulo the stride."""
  up = [-(-(length - 1) // stride) * stride + 1 for length in (height, width)]
  return up[0], up[1]


class Seen(NamedTuple):
  """What one look found, before it is enlarged.

  Attributes:
    low: Logits, float32 [b, h', w', classes].
    up: Matrices for rows and columns that make them those of native size, see
      `interpolate`; None: `low` has that size.
    sown: What the head sowed, by name (with windows: nothing); under
      `ATTENTION`, where that is asked for, see `sow_attention`: by name the
      factors of each time that a block was applied.
  """

  low: Float[Array, 'b hl wl classes']
  up: tuple[Float[Array, 'b h hl'], Float[Array, 'b w wl']] | None
  sown: dict[str, Any]


def view_logits(
  model: nn.Module,
  variables: dict,
  image: UInt8[Array, 'b h w 3'],
  size: Sizes,
  **options,
) -> tuple[Float[Array, 'b h w classes'], dict[str, Array]]:
  """`look`, enlarged: logits at native size, float32, and what was sown.

  Logits are meaningless outside an image. `stripes` makes labels of them, or
  probabilities, without ever holding all of them.
  """
  low, up, sown = look(model, variables, image, size, **options)
  return (low if up is None else interpolate(low, *up)), sown


def look(
  model: nn.Module,
  variables: dict,
  image: UInt8[Array, 'b h w 3'],
  size: Sizes,
  *,
  scale: float = 1.0,
  mirrored: bool | Array | None = None,
  window: int = 0,
  stride: int = 0,
  attention: bool = False,
) -> Seen:
  """Looks at images once, in evaluation mode; pure, to be jitted.

  Args:
    model: The network.
    variables: Its variables.
    image: RGB, each in the top left corner.
    size: Native height and width of each image; zero for an empty place.
    scale: Factor on both, which are then rounded to whole pixels. Resizing is
      bilinear, with the network's `align_corners`, without a low-pass.
    mirrored: Whether images are looked at mirrored left to right; the logits
      are mirrored back. None: never.
    window: See `Protocol`.
    stride: See `Protocol`.
    attention: Whether the head sows its attention between positions: matrices
      of all of them.
  """
  shape, align = image.shape[1:3], model.align_corners
  # Zero after normalisation, as the authors pad: not the colour black.
  x = jnp.where(inside(size, shape)[..., None], normalize(image), 0)
  scaled, scaled_shape, there_and_back = size, shape, None
  if scale != 1 or mirrored is not None:
    scaled = jnp.maximum(jnp.round(size * scale).astype(jnp.int32), 1)
    scaled = jnp.where(size > 0, scaled, 0)  # an empty place stays empty
    scaled_shape = tuple(max(1, round(length * scale)) for length in shape)
    there_and_back = [
      _there_and_back(
        *(size[:, axis], scaled[:, axis], shape[axis], scaled_shape[axis]),
        *(align, bool(axis) and mirrored is not None and mirrored),
      )
      for axis in (0, 1)
    ]
    (rows, _), (cols, _) = there_and_back
    x = interpolate(x, rows, cols)
  if window:
    logits = _slide(model, variables, x, scaled, window, stride)
    if not there_and_back:
      return Seen(logits, None, {})
    (_, rows), (_, cols) = there_and_back
    return Seen(logits, (rows, cols), {})
  low, up, sown = _whole(model, variables, x, scaled, attention)
  if there_and_back:
    (_, rows), (_, cols) = there_and_back
    # One product up to the scaled image and back to the native one.
    up = [
      jnp.einsum('boi,bil->bol', back, to_scaled, precision='highest')
      for back, to_scaled in zip((rows, cols), up, strict=True)
    ]
  return Seen(low, (up[0], up[1]), sown)


def _there_and_back(size, scaled, length, scaled_length, align, mirrored):
  """Matrices that resize one axis of the images, and of the logits back."""
  there = interpolation(size, scaled, (scaled_length, length), align, mirrored)
  back = interpolation(scaled, size, (length, scaled_length), align, mirrored)
  return there, back


def _whole(model, variables, x, size, attention=False):
  """Logits at the output resolution, matrices up to x's shape, and the sown."""
  shape, extent = x.shape[1:3], size
  # The batch's shape is static and each image's extent is traced: both are
  # rounded up, so that an image is padded as if it were alone.
  if model.align_corners:
    stride = model.output_stride
    padded = padded_size(*shape, stride)
    missing = [(0, p - n) for p, n in zip(padded, shape, strict=True)]
    x = jnp.pad(x, [(0, 0), *missing, (0, 0)])
    extent = jnp.where(size > 0, -(-(size - 1) // stride) * stride + 1, 0)
  low, sown = model.apply(
    variables,
    sharding.split_rows(x),
    extent=extent,
    method='low_resolution',
    mutable=['intermediates', *([ATTENTION] if attention else [])],
  )
  low_extent = model.out_extent(extent)
  up = [
    interpolation(
      low_extent[:, axis],
      extent[:, axis],
      (shape[axis], low.shape[1 + axis]),
      model.align_corners,
    )
    for axis in (0, 1)
  ]
  leaves = traverse_util.flatten_dict(sown.get('intermediates', {}))
  named = {path[-1]: values[-1] for path, values in leaves.items()}
  if attention:
    leaves = traverse_util.flatten_dict(sown.get(ATTENTION, {}))
    named[ATTENTION] = {path[-1]: values for path, values in leaves.items()}
  return low, up, named


def _slide(model, variables, x, size, window, stride):
  """Logits at x's shape, averaged over the windows that cover a pixel.

  Windows start a stride apart; the last ends with the image. An image that
  needs fewer of them than the batch's shape has empty ones.
  """
  shape = x.shape[1:3]
  missing = [(0, max(0, window - n)) for n in shape]
  x = jnp.pad(x, [(0, 0), *missing, (0, 0)])

  # Per axis: of each image, and of one that fills the shape.
  needed = jnp.maximum(size - window + stride - 1, 0) // stride + 1
  most = [max(n - window + stride - 1, 0) // stride + 1 for n in shape]

  def one_window(start):
    """Logits [b, window, window, c] of windows, and where they are."""
    place = jnp.minimum(start * stride, jnp.maximum(size - window, 0))
    exists = jnp.all(start < needed, axis=1, keepdims=True)
    extent = jnp.where(exists, jnp.clip(size - place, 0, window), 0)
    cut = jax.vmap(
      lambda one, at: lax.dynamic_slice(one, (*at, 0), (window, window, 3))
    )(x, place)
    low, up, _ = _whole(model, variables, cut, extent)
    here = inside(extent, (window, window))[..., None]
    return jnp.where(here, interpolate(low, *up), 0), here, place

  def add(total, values, place):
    def add_one(total, values, at):
      at = (*at, 0)
      old = lax.dynamic_slice(total, at, values.shape)
      return lax.dynamic_update_slice(total, old + values, at)

    return jax.vmap(add_one)(total, values.astype(total.dtype), place)

  def step(sums, start):
    logits, here, place = one_window(start)
    return (add(sums[0], logits, place), add(sums[1], here, place)), None

  starts = jnp.stack(
    jnp.meshgrid(*map(jnp.arange, most), indexing='ij'), -1
  ).reshape(-1, 2)
  classes = jax.eval_shape(one_window, starts[0])[0].shape[-1]
  zeros = [jnp.zeros((*x.shape[:3], c)) for c in (classes, 1)]
  (total, windows), _ = lax.scan(step, tuple(zeros), starts)
  logits = total / jnp.maximum(windows, 1)
  return logits[:, : shape[0], : shape[1]]
