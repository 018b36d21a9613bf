"""Where the bases of EM attention are responsible; what a pixel attends to.

A photo is looked at once, whole, its longer side at most LOOK pixels: the maps
are coarser than that by the output stride anyway. Of attention between all
positions only one pixel's leaves the network's program.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.inference.batching import pad_images
from emanet_jax.inference.views import look, padded_size
from emanet_jax.models.attention.products import product
from emanet_jax.models.outputs import ATTENTION
from emanet_jax.visualization.overlays import upsample

LOOK = 1025
_SHAPE_STEP = 64  # sides of the padded photo are one more than a multiple
_DRAWN = 400  # pixels of a picture's longer side
# For messages: files of the package, which others may add to.
WITH_ATTENTION = (
  *('a2', 'ann', 'cc', 'da', 'dnl', 'ema', 'gc', 'nonlocal', 'ocr', 'psa'),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
  """What one photo's bases are responsible for, or what a pixel attends to.

  Attributes:
    image: The photo as it was looked at, maybe shrunk.
    stages: Z of the E step of each stage t = 1…T; without bases none, T = 0.
    stride: Pixels of the image between two of the maps.
    scale: Size of `image` over that of the photo.
    maps: Of a head without bases, by name: with which weight each position
      enters what the pixel receives.
  """

  image: UInt8[np.ndarray, 'h w 3']
  stages: Float[np.ndarray, 't hz wz k']
  stride: int
  scale: float
  maps: Mapping[str, Float[np.ndarray, 'hz wz']] = dataclasses.field(
    default_factory=dict
  )

  def at(self, pixel: Sequence[int]) -> tuple[int, int]:
    """Row and column in Z that are nearest to a pixel of the photo."""
    return _nearest(pixel, self.scale, self.stride, self.stages.shape[1:3])

  def picture(self) -> UInt8[np.ndarray, 'h w 3']:
    """The photo as it is drawn."""
    return _shrunk(self.image, _DRAWN)

  def drawn(
    self, maps: Float[np.ndarray, 'hz wz k']
  ) -> Float[np.ndarray, 'k h w']:
    """Maps in Z's grid at the size of the picture."""
    height, width = self.picture().shape[:2]
    grid = [(n - 1) * self.stride + 1 for n in maps.shape[:2]]
    missing = [
      (0, max(0, n - g))
      for n, g in zip(self.image.shape[:2], grid, strict=True)
    ]

    def one(values):
      values = np.pad(upsample(values, (grid[0], grid[1])), missing, 'edge')
      values = values[: self.image.shape[0], : self.image.shape[1]]
      return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

    return np.stack([one(maps[..., k]) for k in range(maps.shape[-1])])


def create_attend(
  models: Sequence[nn.Module],
  variables: dict,
  bases: Sequence[int] = (),
  pixel: Sequence[int] = (),
) -> tuple[Callable[[UInt8[np.ndarray, 'h w 3']], Attention], bool]:
  """What looks at a photo, compiled once a padded shape.

  Args:
    models: The network with 1, 2, … T stages of EM in evaluation.
    variables: Of each of them.
    bases: Those that are going to be drawn, to be checked.
    pixel: Row and column in the photo of which attention is drawn, if any.

  Returns:
    The function, and whether the network has bases.

  Raises:
    UserError: The network has no attention to show, or not this.
  """
  program = _create_program(models)
  one = jax.ShapeDtypeStruct((1, 65, 65, 3), np.uint8)
  two = jax.ShapeDtypeStruct((1, 2), np.int32)
  place = jax.ShapeDtypeStruct((2,), np.int32)
  stages, maps = jax.eval_shape(program, variables, one, two, place)
  _check(stages, maps, bases, pixel)
  model = models[0]

  def attend(image):
    small = _shrunk(image, LOOK)
    height, width = small.shape[:2]
    batch = pad_images([small], padded_size(height, width, _SHAPE_STEP), 1)
    rows, columns = _positions(model, height, width)
    scale, stride = height / image.shape[0], model.output_stride
    place = _nearest(pixel or (0, 0), scale, stride, (rows, columns))
    stages, maps = program(
      variables, batch['image'], batch['size'], np.array(place, np.int32)
    )
    cut = [np.asarray(z)[0, :rows, :columns] for z in stages]
    stages = np.stack(cut) if cut else np.empty((0, rows, columns, 0))
    maps = {k: np.asarray(m)[:rows, :columns] for k, m in maps.items()}
    return Attention(small, stages, stride, scale, maps)

  return attend, bool(stages)


def _positions(model: nn.Module, height: int, width: int) -> tuple[int, int]:
  """Rows and columns of maps of an image of such a size."""
  extent = (height, width)
  if model.align_corners:
    extent = padded_size(height, width, model.output_stride)
  rows, columns = np.asarray(model.out_extent(jnp.array([extent])))[0].tolist()
  return rows, columns


def _create_program(models: Sequence[nn.Module]) -> Callable:
  """(variables, image, size, place) → Z of all stages, or the place's maps."""

  @jax.jit  # in one program, all share one backbone
  def program(variables, image, size, place):
    seen = [look(m, variables, image, size, attention=True) for m in models]
    name = 'responsibilities'
    if stages := [s.sown[name] for s in seen if name in s.sown]:
      return stages, {}
    return [], {
      name: _map_of(place, applications, s.low.shape[1:3])
      for s in seen
      for name, applications in s.sown[ATTENTION].items()
    }

  return program


def _map_of(
  place: Int[Array, '2'],
  applications: Sequence[Sequence[Float[Array, '1 _ _']]],
  shape: tuple[int, int],
) -> Float[Array, 'hz wz']:
  """The weights with which positions enter what one of them receives.

  Args:
    place: Row and column of that one.
    applications: Of the block, the first one first: the factors of each, see
      `sow_attention`.
    shape: Rows and columns of all positions.
  """
  row = None
  for factors in reversed(applications):
    for factor in factors:
      if row is None:
        row = factor[0, place[0] * shape[1] + place[1]]
      else:
        row = product('i,ij->j', row, factor[0])
  return row.reshape(shape)


def _check(stages, maps, bases, pixel):
  """Raises a UserError for pages that this network does not have."""
  if not stages and not maps:
    raise UserError(
      'predict.attention: this network has no attention between positions; '
      f'choose a run with model.head.name {", ".join(WITH_ATTENTION)}, or '
      'leave the option'
    )
  if not stages and bases:
    raise UserError(
      'predict.bases: this network has no bases; choose a run with '
      "model.head.name 'ema', or leave the option"
    )
  if not stages and not pixel:
    raise UserError(
      'predict.attention: this network has no bases to show, but what a pixel '
      'attends to; say which, as --config.predict.pixel="(120, 64)"'
    )
  if bases and max(bases) >= stages[0].shape[-1]:
    raise UserError(
      f'predict.bases is {tuple(bases)}; this network has bases 0 to '
      f'{stages[0].shape[-1] - 1}'
    )


def _nearest(
  pixel: Sequence[int],
  scale: float,
  stride: int,
  lengths: Sequence[int],
) -> tuple[int, int]:
  """Row and column in maps of such lengths, nearest to a pixel of the photo."""
  found = []
  for place, length in zip(pixel, lengths, strict=True):
    place = (place + 0.5) * scale - 0.5
    found.append(min(max(round(place / stride), 0), length - 1))
  return found[0], found[1]


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
  """The image with its longer side at most so long."""
  scale = longest / max(image.shape[:2])
  if scale >= 1:
    return image
  height, width = (max(1, round(scale * side)) for side in image.shape[:2])
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
