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
from emanet_jax.inference import stripes, views


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

  @property
  def views(self) -> list[tuple[float, bool]]:
    """Scale of each view, and whether it is mirrored."""
    sides = (False, True) if self.flip else (False,)
    return [(scale, side) for scale in self.scales for side in sides]

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
  add_up = _create_sum(model, protocol)
  num_views = len(protocol.views)
  mean = jax.jit(lambda total: total / num_views, donate_argnums=0)

  def predict(variables, image, size):
    total, sown = add_up(variables, image, size)
    return mean(total), sown

  return predict


def create_labeler(
  model: nn.Module,
  protocol: Protocol,
  finish: Callable = lambda label: label,
) -> Callable:
  """Returns the function that labels images, compiled for each scale.

  With one view, label maps leave the network's program, and no probabilities:
  the class of the greatest logit, as in the authors' evaluation. It is that of
  the greatest probability, but for classes so equal that their probabilities
  round to the same number.

  Args:
    model: The network.
    protocol: The views.
    finish: (label uint8 [b, h, w], *more) → what is made of labels, in the
      program that finds them.

  Returns:
    (variables, image, size, *more) → what `finish` returns, and what the head
    sowed, see `create_predictor`; with one view a jitted function.
  """
  if len(protocol.views) == 1:
    ((scale, _),) = protocol.views

    @jax.jit
    def view(variables, image, size, *more):
      seen = _look(model, protocol, variables, image, size, scale)
      return finish(stripes.label(seen, image.shape[1:3]), *more), seen.sown

    return view

  add_up = _create_sum(model, protocol)

  @jax.jit
  def conclude(total, *more):
    return finish(jnp.argmax(total, axis=-1).astype(jnp.uint8), *more)

  def label(variables, image, size, *more):
    total, sown = add_up(variables, image, size)
    return conclude(total, *more), sown

  return label


def _look(model, protocol, variables, image, size, scale, mirrored=None):
  return views.look(
    model,
    variables,
    image,
    size,
    scale=scale,
    mirrored=mirrored,
    window=protocol.window,
    stride=protocol.stride,
  )


def _create_sum(model: nn.Module, protocol: Protocol) -> Callable:
  """Like `create_predictor`, of the sum over the views."""

  # One sum, in place: each copy of it is as large as all logits together.
  @functools.partial(jax.jit, static_argnames='scale', donate_argnums=0)
  def view(total, variables, image, size, mirrored, *, scale):
    mirrored = mirrored if protocol.flip else None
    seen = _look(model, protocol, variables, image, size, scale, mirrored)
    return stripes.add_probabilities(total, seen, size), seen.sown

  kind = None  # of the logits, known when there are variables

  def add_up(variables, image, size):
    nonlocal kind
    if kind is None:
      look = functools.partial(_look, model, protocol, scale=1.0)
      kind = jax.eval_shape(look, variables, image, size).low
    total = jnp.zeros(
      (*image.shape[:3], kind.shape[-1]),
      kind.dtype,
      device=getattr(image, 'sharding', None),  # split as the images are
    )
    plainest = min(protocol.views, key=lambda one: (abs(one[0] - 1), one[1]))
    shown = {}
    for scale, mirrored in protocol.views:
      total, sown = view(total, variables, image, size, mirrored, scale=scale)
      if (scale, mirrored) == plainest:
        shown = sown
    return total, shown

  return add_up
