"""Images to probabilities: the one inference path.

Images of any size share one batch of a fixed shape, each in its top left
corner, and each gets what it would get alone: so a data set needs one
compilation a scale.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import UInt8

from emanet_jax.errors import UserError
from emanet_jax.inference.views import view_logits
from emanet_jax.models.layers import inside


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How an image is looked at; probabilities are averaged over the views.

  Attributes:
    scales: Factors on height and width.
    flip: Whether each scale is looked at mirrored, too.
    window: Side of the square windows that slide over an image, pixels; 0:
      the whole image at once.
    stride: Between windows, pixels. Where windows overlap, logits are averaged.
  """

  scales: tuple[float, ...] = (1.0,)
  flip: bool = False
  window: int = 0
  stride: int = 0


SINGLE_SCALE = Protocol()


def create_protocol(config: ml_collections.ConfigDict) -> Protocol:
  """The protocol of the `eval` part of a configuration, checked.

  Raises:
    UserError: An impossible value.
  """
  window, stride = config.window, config.window_stride
  if window < 0 or (window and not 0 < stride <= window):
    raise UserError(
      f'eval.window is {window} and eval.window_stride {stride}; give 0 for '
      'whole images, or a window and a stride of 1 to the window'
    )
  if not config.scales or min(config.scales) <= 0:
    raise UserError(
      f'eval.scales is {tuple(config.scales)}; give one factor or more, above 0'
    )
  if not config.multi_scale:
    return Protocol(window=window, stride=stride)
  return Protocol(tuple(config.scales), config.flip, window, stride)


def pad_images(
  images: Sequence[UInt8[np.ndarray, '_ _ 3']],
  shape: tuple[int, int],
  count: int,
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


def create_predictor(model: nn.Module, protocol: Protocol) -> Callable:
  """Returns the function that looks at images, compiled for each scale.

  Args:
    model: The network.
    protocol: The views.

  Returns:
    (variables, image uint8 [b, h, w, 3], size [b, 2]) → probabilities float32
    [b, h, w, classes], zero outside an image; and what the head sowed at the
    scale nearest to 1, by name: for EMA `responsibilities` [b, h', w', k] and
    `bases` [b, k, c]; nothing with windows. One compilation for each scale and
    shape of the batch.
  """

  @functools.partial(jax.jit, static_argnames='scale')
  def view(variables, image, size, mirrored, *, scale):
    logits, sown = view_logits(
      model,
      variables,
      image,
      size,
      scale=scale,
      mirrored=mirrored if protocol.flip else None,
      window=protocol.window,
      stride=protocol.stride,
    )
    here = inside(size, image.shape[1:3])[..., None]
    return jnp.where(here, jax.nn.softmax(logits), 0), sown

  def predict(variables, image, size):
    views = [
      (scale, mirrored)
      for scale in protocol.scales
      for mirrored in ((False, True) if protocol.flip else (False,))
    ]
    plainest = min(views, key=lambda one: (abs(one[0] - 1), one[1]))
    total, shown = 0.0, {}
    for scale, mirrored in views:
      one, sown = view(variables, image, size, mirrored, scale=scale)
      total = total + one
      if (scale, mirrored) == plainest:
        shown = sown
    return total / len(views), shown

  return predict
