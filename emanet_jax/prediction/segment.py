"""Many photos through the network: few shapes, full batches, no bad surprise.

Whatever goes wrong with a photo is noted, and the others go on.
"""

import collections
import concurrent.futures
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from emanet_jax.errors import UserError
from emanet_jax.inference.predictor import (
  Protocol,
  create_predictor,
  pad_images,
)
from emanet_jax.inference.views import padded_size
from emanet_jax.prediction import photos
from emanet_jax.prediction.photos import Photo
from emanet_jax.runtime import sharding

_SHAPE_STEP = 64  # sides of padded shapes are one more than a multiple
_PIXELS = 1024**2  # of a photo: of larger ones, fewer share a batch
_LARGE = 2048**2  # pixels of a photo that is better looked at by windows
_LOG_EVERY = 5.0  # seconds
_SMALLER = (
  'look through windows, as with --config.eval.window=769 '
  '--config.eval.window_stride=513 (--config.eval.batch_size=1 needs least '
  'memory)'
)


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """What the network made of a photo; all upright.

  Attributes:
    photo: Where it came from.
    image: Its pixels.
    label: The most probable classes.
    probabilities: Of all classes, if wanted.
    orientation: By which the photo was turned upright.
  """

  photo: Photo
  image: UInt8[np.ndarray, 'h w 3']
  label: UInt8[np.ndarray, 'h w']
  probabilities: Float[np.ndarray, 'h w classes'] | None
  orientation: int


class Progress:
  """Counts photos, notes why some failed, and tells from time to time."""

  def __init__(self, total: int):
    self.failed: dict[str, str] = {}  # where → why
    self._total, self._done = total, 0
    self._start = self._told = time.monotonic()

  def fail(self, photo: Photo, error: Exception) -> None:
    """Notes a photo that nothing came of."""
    self.failed[photo.where] = str(error)
    logging.warning('%s', error)
    self.advance()

  def advance(self) -> None:
    """Counts a photo; logs every few seconds and at the end."""
    self._done += 1
    now = time.monotonic()
    if now - self._told < _LOG_EVERY and self._done < self._total:
      return
    self._told = now
    speed = self._done / max(now - self._start, 1e-9)
    left = datetime.timedelta(seconds=round((self._total - self._done) / speed))
    logging.info(
      '%d/%d photos  %.1f images/s  ETA %s',
      *(self._done, self._total, speed, left),
    )


def shared_shapes(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
  """A padded shape for each height and width: few, as each is compiled.

  A photo gets a shape of its own, its sides rounded up, only where it would
  fill less than half of each that larger photos have.
  """
  shapes, found = [], {}
  for size in sorted(set(sizes), key=lambda s: (-s[0] * s[1], s)):
    own = padded_size(*size, _SHAPE_STEP)
    fitting = [
      shape
      for shape in shapes
      if own[0] <= shape[0]
      and own[1] <= shape[1]
      and 2 * own[0] * own[1] >= shape[0] * shape[1]
    ]
    if not fitting:
      shapes.append(own)
    found[size] = min(fitting or [own], key=lambda s: s[0] * s[1])
  return [found[size] for size in sizes]


def look(
  model: nn.Module,
  variables: dict,
  protocol: Protocol,
  given: Sequence[Photo],
  progress: Progress,
  *,
  batch_size: int,
  probabilities: bool = False,
  check: Callable[[Photo, tuple[int, int]], None] = lambda photo, size: None,
) -> Iterator[Result]:
  """Looks at photos, in batches of one padded shape.

  Args:
    model: The network.
    variables: Its variables, on this process's devices.
    protocol: How it looks.
    given: The photos.
    progress: Is told what failed; the caller advances it for what is yielded.
    batch_size: Photos at a time, rounded up to the devices; fewer when they
      have more than 1024² pixels.
    probabilities: Whether results have them.
    check: Raises UserError for a photo of an unsuitable height and width.

  Yields:
    A result for each photo that could be read, shape by shape.
  """
  mesh = sharding.create_mesh(jax.local_devices())
  predictor = create_predictor(model, protocol)
  to_label = jax.jit(lambda p: jnp.argmax(p, axis=-1).astype(jnp.uint8))

  def look_at(batch):
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    found, _ = predictor(variables, batch['image'], batch['size'])
    labels = np.asarray(to_label(found))
    return labels, np.asarray(found) if probabilities else None

  with concurrent.futures.ThreadPoolExecutor() as pool:
    groups = _group(pool, given, progress, protocol, check)
    for shape, count, group in _batches(groups, batch_size, mesh.size):
      read = list(_attempt(pool, photos.decode, group, progress))
      if not read:
        continue
      try:
        images = [image for _, (image, _) in read]
        labels, found = look_at(pad_images(images, shape, count))
      except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
          raise
        for photo, _ in read:
          progress.fail(photo, _out_of_memory(photo, shape))
        continue
      for i, (photo, (image, orientation)) in enumerate(read):
        here = (i, *map(slice, image.shape[:2]))
        own = None if found is None else found[here].astype(np.float16)
        yield Result(photo, image, labels[here], own, orientation)


def _group(pool, given, progress, protocol, check):
  """Photos by the padded shape that they are looked at in."""

  def measure(photo):
    size = photos.measure(photo)
    check(photo, size)
    return size

  measured = list(_attempt(pool, measure, given, progress))
  _warn_of_large(measured, protocol)
  groups = collections.defaultdict(list)
  shapes = shared_shapes([size for _, size in measured])
  for (photo, _), shape in zip(measured, shapes, strict=True):
    groups[shape].append(photo)
  logging.info(
    'photos to look at: %d; padded shapes: %d, each compiled for each of %d '
    'scale(s)',
    *(len(measured), len(groups), len(protocol.scales)),
  )
  return groups


def _attempt(pool, function, given, progress):
  """Photos and what the function returns of each, without the failures."""

  def attempt(photo):
    try:
      return function(photo)
    except UserError as error:
      return error

  for photo, value in zip(given, pool.map(attempt, given), strict=True):
    if isinstance(value, UserError):
      progress.fail(photo, value)
    else:
      yield photo, value


def _batches(groups, batch_size, devices):
  """Shape, number of places and photos of each batch."""
  for (height, width), group in groups.items():
    room = batch_size * _PIXELS // (height * width)
    count = max(1, min(batch_size, len(group), room))
    count += -count % devices
    for i in range(0, len(group), count):
      yield (height, width), count, group[i : i + count]


def _warn_of_large(measured, protocol: Protocol) -> None:
  large = [(h * w, h, w, p.where) for p, (h, w) in measured if h * w > _LARGE]
  if large and not protocol.window:
    _, height, width, where = max(large)
    logging.warning(
      '%d photos of more than %d million pixels (%s: %d×%d) are looked at '
      'whole; if memory does not suffice, %s',
      *(len(large), _LARGE // 10**6, where, width, height, _SMALLER),
    )


def _out_of_memory(photo: Photo, shape: tuple[int, int]) -> UserError:
  return UserError(
    f'{photo.where}: the device has not enough memory for photos padded to '
    f'{shape[1]}×{shape[0]}; {_SMALLER}'
  )
