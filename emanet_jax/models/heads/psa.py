"""PSANet's head: attention to positions by where they lie from one another.

Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing"
(ECCV 2018), as in the authors' code (`hszhao/semseg`, `model/psanet.py`) and,
by choice, in mmsegmentation's form.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from emanet_jax.array import Array
from emanet_jax.models.attention.point_wise import (
  collect_weights,
  distribute_weights,
  pair_scores,
)
from emanet_jax.models.attention.products import (
  flatten,
  positions_inside,
  weighted_sums,
)
from emanet_jax.models.attention.pyramid import full_extent
from emanet_jax.models.heads._shared import (
  check,
  classify,
  conv_norm,
)
from emanet_jax.models.layers import keep_inside
from emanet_jax.models.outputs import attention_wanted, sow_attention
from emanet_jax.models.resize import interpolate, interpolation

FREE_IN_EVALUATION = ('dropout_rate',)

_DIRECTIONS = {'collect': collect_weights, 'distribute': distribute_weights}
Ways = tuple[Float[Array, 'b ho h'], Float[Array, 'b wo w']]


class Offsets(nn.Module):
  """Scores of all positions, predicted by each; see `pair_scores`."""

  mask_size: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b n n']:
    shape = self.mask_size, self.mask_size, x.shape[-1]
    init = nn.initializers.variance_scaling(
      1 / 3, 'fan_in', 'uniform', in_axis=2, out_axis=(0, 1)
    )
    return pair_scores(x, self.param('kernel', init, shape))


class PointWise(nn.Module):
  """One of the two directions, on a shrunk map.

  Attributes:
    channels: Width.
    mask_size: See `PSAHead`.
    norm_momentum: Share of running statistics kept per step.
    weigh: `collect_weights` or `distribute_weights`.
  """

  channels: int
  mask_size: int
  norm_momentum: float
  weigh: Callable

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w c'],
    shrink: Ways,
    extent: Int[Array, 'b 2'],
    train: bool,
  ) -> tuple[Float[Array, 'b ho wo channels'], Float[Array, 'b n n']]:
    """What positions of the shrunk map receive, and with which weights."""
    width, momentum = self.channels, self.norm_momentum
    x = conv_norm(width, momentum, 'reduce', size=1)(x, train=train)
    x = interpolate(x, *shrink)
    y = conv_norm(width, momentum, 'adapt', size=1)(x, train=train)
    scores = Offsets(self.mask_size, name='offsets')(y)
    weights = self.weigh(scores, positions_inside(extent, x.shape))
    return weighted_sums(weights, flatten(x)).reshape(x.shape), weights


class PSAHead(nn.Module):
  """Features collected and distributed, beside the features; classified.

  Attention works on maps of half the size: ceil(h/2) rows, with align_corners.

  Attributes:
    num_classes: Classes predicted.
    channels: Width of each direction and before the classifier.
    mask_size: Rows and columns of the mask of offsets that are scored. The
      authors have 2·n - 1 for n rows of the shrunk map in training: 65 for
      crops of 513 at output stride 8, which is all offsets.
    padded: mmsegmentation's form: the projection after attention is padded by a
      pixel, and where a side is even, the shrunk map has h//2 rows and both
      ways are without align_corners.
    dropout_rate: Share of whole channels dropped in training, in [0, 1).
    norm_momentum: Share of running statistics kept per step.
  """

  num_classes: int
  channels: int
  mask_size: int
  padded: bool
  dropout_rate: float
  norm_momentum: float

  @nn.compact
  def __call__(
    self,
    features: tuple[Float[Array, 'b _ _ _'], ...],
    *,
    train: bool,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b h w classes']:
    """Takes the backbone's stage features, returns logits at the last's size.

    In training the rng stream 'dropout' is needed unless dropout_rate is 0.
    """
    x, momentum = features[-1], self.norm_momentum
    whole, corners = full_extent(x, extent), jnp.ones(x.shape[0], bool)
    shape = tuple((n + 1) // 2 for n in x.shape[1:3])
    if self.padded:
      corners = (whole % 2 == 1).all(-1)
      if extent is None and any(n % 2 == 0 for n in x.shape[1:3]):
        # The statistics of a batch see all of a map: it has just its size.
        shape = tuple(max(n // 2, 1) for n in x.shape[1:3])
    half = jnp.where(
      corners[:, None], (whole + 1) // 2, jnp.maximum(whole // 2, 1)
    )
    shrink = _ways(whole, half, x.shape[1:3], shape, corners)
    options = self.channels, self.mask_size, momentum
    attended = [
      PointWise(*options, weigh, name=name)(x, shrink, half, train)
      for name, weigh in _DIRECTIONS.items()
    ]
    branches, weights = zip(*attended, strict=True)
    y = keep_inside(jnp.concatenate(branches, axis=-1), half)
    pad = int(self.padded)
    y = jnp.pad(y, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    y = conv_norm(x.shape[-1], momentum, 'project', size=1)(y, train=train)
    back = _ways(half + 2 * pad, whole, y.shape[1:3], x.shape[1:3], corners)
    self._sow(weights, back, half)
    y = jnp.concatenate([x, interpolate(y, *back)], axis=-1)
    conv = conv_norm(self.channels, momentum, 'conv_cat')
    y = conv(y, train=train, extent=extent)
    return classify(y, self.num_classes, self.dropout_rate, train)

  def _sow(self, weights, back, half):
    """Both directions' weights, between positions of the head's features.

    On the way back, a position of the shrunk map is enlarged to several, which
    stand for it among those that give, too.
    """
    if not attention_wanted(self):
      return
    pad = int(self.padded)
    rows, cols = (way[..., pad : way.shape[-1] - pad] for way in back)
    batch, height, shrunk_height = rows.shape
    up = jnp.einsum('byi,bxj->byxij', rows, cols)
    up = up.reshape(batch, height * cols.shape[1], -1)
    counted = positions_inside(half, (batch, shrunk_height, cols.shape[-1]))
    up = jnp.where(counted[:, None], up, 0)
    total = up.sum(1, keepdims=True)
    down = (up / jnp.where(total > 0, total, 1)).swapaxes(1, 2)
    names = 'what it collects', 'what is distributed to it'
    for name, one in zip(names, weights, strict=True):
      sow_attention(self, name, up, one, down)


def _ways(
  length: Int[Array, 'b 2'],
  out: Int[Array, 'b 2'],
  shape: tuple[int, int],
  out_shape: tuple[int, int],
  corners: Bool[Array, ' b'],
) -> Ways:
  """How images of their own lengths are resized, see `interpolate`.

  Each with align_corners or without; shapes are those of the batch.
  """

  def ways(axis):
    sizes = out_shape[axis], shape[axis]
    with_corners, without = (
      interpolation(length[:, axis], out[:, axis], sizes, align_corners)
      for align_corners in (True, False)
    )
    return jnp.where(corners[:, None, None], with_corners, without)

  return ways(0), ways(1)


def create(
  num_classes: int,
  norm_momentum: float,
  *,
  channels: int = 512,
  mask_size: int = 65,
  padded: bool = False,
  dropout_rate: float = 0.1,
) -> PSAHead:
  """The head of a configuration, checked.

  Args:
    num_classes: Classes predicted.
    norm_momentum: Share of running statistics kept per step.
    channels: See `PSAHead`.
    mask_size: See `PSAHead`.
    padded: See `PSAHead`; by default as the authors have it.
    dropout_rate: See `PSAHead`.

  Raises:
    UserError: A value that no such head has.
  """
  check('psa', dropout_rate, channels=channels, mask_size=mask_size)
  return PSAHead(
    num_classes, channels, mask_size, padded, dropout_rate, norm_momentum
  )
