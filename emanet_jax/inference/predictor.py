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

  def __str__(self) -> str:
    scales = ', '.join(f'{scale:g}' for scale in self.scales)
    return (
      ('one scale' if self.scales == (1.0,) else f'scales {scales}')
      + (', mirrored too' if self.flip else '')
      + (
        f', windows of {self.window} every {self.stride}'
        if self.window
        else ', whole images'
      )
    )

  @property
  def name(self) -> str:
    """For folders: '' for one look at whole images."""
    found = []
    if self.scales != (1.0,):
      found += ['scales', *(f'{scale:g}' for scale in self.scales)]
    found += ['flip'] * self.flip
    found += [f'window_{self.window}_{self.stride}'] * bool(self.window)
    return '_'.join(found)


SINGLE_SCALE = Protocol()


def create_protocol(
  *,
  multi_scale: bool,
  scales: Sequence[float],
  flip: bool | None,
  window: int,
  window_stride: int,
) -> Protocol:
  """The protocol of the options that `config.eval` has, checked.

  Args:
    multi_scale: Whether `scales` count; else there is one, 1.
    scales: See `Protocol`.
    flip: See `Protocol`; None: where multi_scale is.
    window: See `Protocol`.
    window_stride: See `Protocol`.

  Raises:
    UserError: An impossible value.
  """
  if window < 0 or (window and not 0 < window_stride <= window):
    raise UserError(
      f'eval.window is {window} and eval.window_stride {window_stride}; give 0 '
      'for whole images, or a window and a stride of 1 to the window'
    )
  if not scales or min(scales) <= 0:
    raise UserError(
      f'eval.scales is {tuple(scales)}; give one factor or more, above 0'
    )
  return Protocol(
    tuple(scales) if multi_scale else (1.0,),
    multi_scale if flip is None else flip,
    window,
    window_stride,
  )


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
    # Summed view by view: the probabilities of all views at once would need
    # their number times the memory.
    total, shown = 0.0, {}
    for scale, mirrored in views:
      one, sown = view(variables, image, size, mirrored, scale=scale)
      total = total + one
      if (scale, mirrored) == plainest:
        shown = sown
    return total / len(views), shown

  return predict
