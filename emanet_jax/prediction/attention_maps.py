"""Where the bases of EM attention are responsible in a photo.

A photo is looked at once, whole, its longer side at most LOOK pixels: the maps
are coarser than that by the output stride anyway.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from emanet_jax.errors import UserError
from emanet_jax.inference.batching import pad_images
from emanet_jax.inference.views import padded_size, view_logits
from emanet_jax.visualization.overlays import upsample

LOOK = 1025
_SHAPE_STEP = 64  # sides of the padded photo are one more than a multiple
_DRAWN = 400  # pixels of a picture's longer side


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
  """What one photo's bases are responsible for.

  Attributes:
    image: The photo as it was looked at, maybe shrunk.
    stages: Z of the E step of each stage t = 1…T.
    stride: Pixels of the image between two of Z.
    scale: Size of `image` over that of the photo.
  """

  image: UInt8[np.ndarray, 'h w 3']
  stages: Float[np.ndarray, 't hz wz k']
  stride: int
  scale: float

  def at(self, pixel: tuple[int, int]) -> tuple[int, int]:
    """Row and column in Z that are nearest to a pixel of the photo."""
    found = []
    for place, length in zip(pixel, self.stages.shape[1:3], strict=True):
      place = (place + 0.5) * self.scale - 0.5
      found.append(min(max(round(place / self.stride), 0), length - 1))
    return found[0], found[1]

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
  models: Sequence[nn.Module], variables: dict, bases: Sequence[int] = ()
) -> Callable[[UInt8[np.ndarray, 'h w 3']], Attention]:
  """Returns the function that looks at a photo, compiled once a padded shape.

  Args:
    models: The network with 1, 2, … T stages of EM in evaluation.
    variables: Of each of them.
    bases: Those that are going to be drawn, to be checked.

  Raises:
    UserError: The network has no bases, or not these.
  """

  @jax.jit  # in one program, all share one backbone
  def responsibilities(variables, image, size):
    sown = [view_logits(m, variables, image, size)[1] for m in models]
    return [s['responsibilities'] for s in sown if 'responsibilities' in s]

  one = jax.ShapeDtypeStruct((1, 65, 65, 3), np.uint8)
  size = jax.ShapeDtypeStruct((1, 2), np.int32)
  shapes = jax.eval_shape(responsibilities, variables, one, size)
  if not shapes:
    raise UserError(
      'predict.attention: this network has no bases; choose a run with '
      "model.head.name 'ema', or leave the option"
    )
  if bases and max(bases) >= shapes[0].shape[-1]:
    raise UserError(
      f'predict.bases is {tuple(bases)}; this network has bases 0 to '
      f'{shapes[0].shape[-1] - 1}'
    )
  model = models[0]

  def attend(image):
    small = _shrunk(image, LOOK)
    height, width = small.shape[:2]
    batch = pad_images([small], padded_size(height, width, _SHAPE_STEP), 1)
    extent = (height, width)
    if model.align_corners:
      extent = padded_size(height, width, model.output_stride)
    rows, columns = np.asarray(model.out_extent(jnp.array([extent])))[0]
    stages = responsibilities(variables, batch['image'], batch['size'])
    stages = np.stack([np.asarray(z)[0, :rows, :columns] for z in stages])
    scale = small.shape[0] / image.shape[0]
    return Attention(small, stages, model.output_stride, scale)

  return attend


def _shrunk(image: np.ndarray, longest: int) -> np.ndarray:
  """The image with its longer side at most so long."""
  scale = longest / max(image.shape[:2])
  if scale >= 1:
    return image
  height, width = (max(1, round(scale * side)) for side in image.shape[:2])
  return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
