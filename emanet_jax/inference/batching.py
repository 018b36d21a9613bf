"""The one batcher: images of many sizes in batches of few padded shapes.

Each shape is compiled once a scale, so images share shapes, at the price of
padding. Evaluation and prediction both plan their batches here before the first
image is decoded.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError
from emanet_jax.inference.views import padded_size

Size = tuple[int, int]  # height and width, in pixels

# Of a padded image of 1024²: of larger ones, fewer share a batch.
_PIXELS = 1025**2
MOST_SHAPES = 4  # of a plan: each is compiled once a scale
_COMPILATION = 2**22  # pixels that take about as long on a CPU
_SIDES = 24  # heights, and widths, that a shape is chosen from
SMALLER = (
  'look through windows, as with --config.eval.window=769 '
  '--config.eval.window_stride=513 (--config.eval.batch_size=1 needs least '
  'memory)'
)


@dataclasses.dataclass(frozen=True)
class Batch:
  """Images that go through the network together.

  Attributes:
    shape: Height and width that they are padded to.
    places: Images that the batch has room for, the same for each of this shape;
      the last one may have empty places.
    members: Positions of the images in what was planned.
  """

  shape: Size
  places: int
  members: tuple[int, ...]


def plan_batches(
  sizes: Sequence[Size],
  *,
  batch_size: int,
  stride: int,
  shape_step: int = 0,
  devices: int = 1,
) -> list[Batch]:
  """Divides images into batches, shape by shape.

  Args:
    sizes: Height and width of each image.
    batch_size: Images at a time, rounded up to the devices; fewer where they
      have more than 1024² pixels, and where there are not so many.
    stride: The network's output stride: sides are one more than a multiple.
    shape_step: 0: at most four shapes, chosen for little padding; fewer, where
      one more would spare less than a compilation takes, four million pixels.
      Else each side is rounded up to one more than a multiple of this, and only
      equal ones share a shape.
    devices: That share a batch.

  Returns:
    Batches that hold every image once; within a shape, in order.
  """
  if shape_step:
    shapes = [padded_size(*size, shape_step) for size in sizes]
  else:
    shapes = _few_shapes(sizes, stride)
  by_shape = collections.defaultdict(list)
  for position, shape in enumerate(shapes):
    by_shape[shape].append(position)
  batches = []
  for (height, width), members in by_shape.items():
    room = batch_size * _PIXELS // (height * width)
    most = max(1, min(batch_size, len(members), room))
    # As many batches as these are, without more empty places than need be.
    places = -(-len(members) // -(-len(members) // most))
    places += -places % devices
    batches += [
      Batch((height, width), places, tuple(members[i : i + places]))
      for i in range(0, len(members), places)
    ]
  return batches


def _few_shapes(sizes: Sequence[Size], stride: int) -> list[Size]:
  """A shape for each size, at most four in all.

  First there is one that holds all; then always the one more that spares most
  padding, among pairs of some images' sides, as long as that is more than a
  compilation. An image goes to the smallest shape that holds it.
  """
  if not sizes:
    return []
  own, members, counts = np.unique(
    [padded_size(*size, stride) for size in sizes],
    axis=0,
    return_inverse=True,
    return_counts=True,
  )
  ranks = np.linspace(0, 1, _SIDES)
  sides = [np.quantile(side, ranks, method='higher') for side in own.T]
  candidates = np.stack(np.meshgrid(*sides, indexing='ij'), -1).reshape(-1, 2)
  holds = (own <= candidates[:, None]).all(axis=-1)
  area = np.where(holds, candidates.prod(axis=1)[:, None], np.inf)

  chosen = [len(candidates) - 1]  # holds all
  while len(chosen) < MOST_SHAPES:
    now = area[chosen].min(axis=0)
    spared = np.maximum(now - area, 0) @ counts
    if spared.max() < _COMPILATION:
      break
    chosen.append(int(spared.argmax()))
    # Some that were chosen before may hold no image any more.
    used = np.unique(area[chosen].argmin(axis=0))
    chosen = [chosen[i] for i in used]
  nearest = area[chosen].argmin(axis=0)
  shape_of = [own[nearest == i].max(axis=0).tolist() for i in nearest]
  return [tuple(shape_of[member]) for member in members.ravel()]


def pad_images(
  images: Sequence[UInt8[np.ndarray, '_ _ 3']], shape: Size, count: int
) -> dict[str, np.ndarray]:
  """Images in the top left corners of a batch of a fixed shape.

  Args:
    images: At most `count`, none larger than `shape`.
    shape: Height and width of the batch.
    count: Images in the batch; those beyond len(images) have size zero.

  Returns:
    `image` uint8 [count, *shape, 3] and `size` int32 [count, 2], the native
    heights and widths.
  """
  batch = np.zeros((count, *shape, 3), np.uint8)
  sizes = np.zeros((count, 2), np.int32)
  for i, image in enumerate(images):
    batch[i, : image.shape[0], : image.shape[1]] = image
    sizes[i] = image.shape[:2]
  return {'image': batch, 'size': sizes}


def pad_labels(
  labels: Sequence[UInt8[np.ndarray, '_ _']], shape: Size, count: int
) -> UInt8[np.ndarray, 'count h w']:
  """Labels likewise, ignored (255) wherever no image is."""
  batch = np.full((count, *shape), IGNORE_LABEL, np.uint8)
  for i, label in enumerate(labels):
    batch[i, : label.shape[0], : label.shape[1]] = label
  return batch


class LackOfMemoryError(UserError):
  """A device's memory does not suffice for images of a size."""


@contextlib.contextmanager
def explain_lack_of_memory(shape: Size) -> Iterator[None]:
  """Turns a device's lack of memory inside into an error with remedies."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise LackOfMemoryError(
      'the device has not enough memory for images padded to '
      f'{shape[1]}×{shape[0]}; {SMALLER}'
    ) from error
