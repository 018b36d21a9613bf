"""Many photos through the network: few shapes, full batches, no bad surprise.

Whatever goes wrong with a photo is noted, and the others go on.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from emanet_jax.errors import UserError
from emanet_jax.inference import batching
from emanet_jax.inference.predictor import (
  Protocol,
  create_labeler,
  create_predictor,
)
from emanet_jax.prediction import photos
from emanet_jax.prediction.photos import Photo
from emanet_jax.runtime import sharding
from emanet_jax.runtime.progress import Progress

_LARGE = 2048**2  # pixels of a photo that is better looked at by windows


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


class Failures:
  """Why nothing came of some photos."""

  def __init__(self, progress: Progress):
    self.by_place: dict[str, str] = {}  # where → why
    self._progress = progress

  def add(self, photo: Photo, error: Exception) -> None:
    """Notes and counts a photo that nothing came of."""
    self.by_place[photo.where] = str(error)
    logging.warning('%s', error)
    self._progress.tick()


def segment_photos(
  model: nn.Module,
  variables: dict,
  protocol: Protocol,
  given: Sequence[Photo],
  failures: Failures,
  *,
  batch_size: int,
  shape_step: int = 0,
  space: int = 1,
  probabilities: bool = False,
  check: Callable[[Photo, tuple[int, int]], None] = lambda photo, size: None,
) -> Iterator[Result]:
  """Predicts photos, in batches of few padded shapes.

  Args:
    model: The network.
    variables: Its variables, on this process's devices.
    protocol: How it looks.
    given: The photos.
    failures: Is told what failed; the caller counts what is yielded.
    batch_size: See `plan_batches`.
    shape_step: See `plan_batches`.
    space: Parts that each photo's rows are split into.
    probabilities: Whether results have them.
    check: Raises UserError for a photo of an unsuitable height and width.

  Yields:
    A result for each photo that could be read, shape by shape.

  Raises:
    UserError: This process's devices cannot share rows out like that.
  """
  mesh = sharding.create_mesh(jax.local_devices(), space=space)
  look = _create_look(model, protocol, probabilities)

  def predict(batch):
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    with jax.set_mesh(mesh):
      return jax.device_get(look(variables, batch['image'], batch['size']))

  with concurrent.futures.ThreadPoolExecutor() as pool:
    measured = _measured(pool, given, failures, check)
    _warn_of_large(measured, protocol)
    batches = batching.plan_batches(
      [size for _, size in measured],
      batch_size=batch_size,
      stride=model.output_stride,
      shape_step=shape_step,
      devices=sharding.num_shares(mesh),
    )
    logging.info(
      'photos to look at: %d; padded shapes: %d, each compiled for each of %d '
      'scale(s)',
      *(len(measured), len({b.shape for b in batches}), len(protocol.scales)),
    )
    for batch in batches:
      group = [measured[member][0] for member in batch.members]
      read = list(_attempt(pool, photos.decode, group, failures))
      if not read:
        continue
      images = [image for _, (image, _) in read]
      try:
        with batching.explain_lack_of_memory(batch.shape):
          labels, found = predict(
            batching.pad_images(images, batch.shape, batch.places)
          )
      except UserError as error:
        for photo, _ in read:
          failures.add(photo, UserError(f'{photo.where}: {error}'))
        continue
      for i, (photo, (image, orientation)) in enumerate(read):
        here = (i, *map(slice, image.shape[:2]))
        own = None if found is None else found[here].astype(np.float16)
        yield Result(photo, image, labels[here], own, orientation)


def _create_look(model, protocol, probabilities):
  """(variables, image, size) → labels; and probabilities, if wanted."""
  if not probabilities:
    label = create_labeler(model, protocol)
    return lambda *batch: (label(*batch)[0], None)
  predict = create_predictor(model, protocol)
  to_label = jax.jit(lambda p: jnp.argmax(p, axis=-1).astype(jnp.uint8))

  def look(*batch):
    found, _ = predict(*batch)
    return to_label(found), found

  return look


def _measured(pool, given, failures, check) -> list[tuple[Photo, Any]]:
  """Photos and their sizes, without those that cannot be read."""

  def measure(photo):
    size = photos.measure(photo)
    check(photo, size)
    return size

  return list(_attempt(pool, measure, given, failures))


def _attempt(pool, function, given, failures):
  """Photos and what the function returns of each, without the failures."""

  def attempt(photo):
    try:
      return function(photo)
    except UserError as error:
      return error

  for photo, value in zip(given, pool.map(attempt, given), strict=True):
    if isinstance(value, UserError):
      failures.add(photo, value)
    else:
      yield photo, value


def _warn_of_large(measured, protocol: Protocol) -> None:
  large = [(h * w, h, w, p.where) for p, (h, w) in measured if h * w > _LARGE]
  if large and not protocol.window:
    _, height, width, where = max(large)
    logging.warning(
      '%d photos of more than %d million pixels (%s: %d×%d) are looked at '
      'whole; if memory does not suffice, %s',
      *(len(large), _LARGE // 10**6, where, width, height, batching.SMALLER),
    )
