"""A segmentation network: backbone, head, upsampling to the input's size."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float, Int

from emanet_jax import parts
from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models.layers import like_flax
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import sow_output
from emanet_jax.models.resize import resize_bilinear

DTYPES = ('auto', 'float32', 'bfloat16', 'float64')
CONVOLUTIONS = ('fast', 'flax')

# Of ImageNet's RGB images in [0, 1]: what the backbones were trained on.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(image: Array) -> Float[Array, '*b 3']:
  """RGB in 0…255, any dtype, to the normalised float32 the network expects."""
  mean = np.array(MEAN, np.float32) * 255
  std = np.array(STD, np.float32) * 255
  return (image.astype(jnp.float32) - mean) / std


class Segmenter(nn.Module):
  """Image to logits.

  Variables: `params`, `batch_stats` (running statistics) and `bases` (μ⁰).

  Attributes:
    backbone: Module returning stage features.
    head: Module turning them into logits at a stage's resolution.
    align_corners: How logits are upsampled, see `resize_bilinear`.
    dtype: Compute dtype of the features, see `compute_dtype`. Under 'bfloat16'
      the parameters, statistics, EM arithmetic and logits stay float32;
      'float64' is for comparisons and needs JAX's x64 mode.
    auxiliary_head: A head on the stages but the last one, for its loss in
      training, see `models.outputs`; evaluation leaves it out.
    auxiliary_weight: Of that loss, beside the main one.
    convolution: One of CONVOLUTIONS: 'fast' is `conv2d`; 'flax' is XLA's
      convolution as flax's layers call it, and batch normalisation without a
      gradient of our own: the same numbers but for rounding, to compare with,
      and for forward-mode differentiation.
  """

  backbone: nn.Module
  head: nn.Module
  align_corners: bool
  dtype: str
  auxiliary_head: nn.Module | None = None
  auxiliary_weight: float = 0.0
  convolution: str = 'fast'

  def __call__(
    self,
    image: Float[Array, 'b h w 3'],
    *,
    train: bool = False,
  ) -> Float[Array, 'b h w classes']:
    """Logits, float32, at the size of the normalised image."""
    logits = self.low_resolution(image, train=train)
    return self.upsample(logits, image.shape[1:3])

  def low_resolution(
    self,
    image: Float[Array, 'b h w 3'],
    *,
    train: bool = False,
    extent: Int[Array, 'b 2'] | None = None,
  ) -> Float[Array, 'b ho wo classes']:
    """Logits, float32, at the resolution of one of the backbone's stages.

    Args:
      image: Normalised.
      train: Whether statistics and bases are those of the batch, and move.
      extent: Height and width of each image, where it does not fill the batch:
        it gets the logits that it has alone. Not for training.
    """
    if image.ndim != 4 or image.shape[-1] != 3:
      raise UserError(f'image is {image.shape}; expected [b, h, w, 3]')
    if not jnp.issubdtype(image.dtype, jnp.floating):
      raise UserError(
        f'image is {image.dtype}; expected normalised values, as '
        'emanet_jax.models.segmenter.normalize makes them of RGB in 0…255'
      )
    with contextlib.ExitStack() as stack:
      if self.convolution == 'flax':
        stack.enter_context(nn.intercept_methods(like_flax))
      return self._low_resolution(jnp.asarray(image, self.dtype), train, extent)

  def _low_resolution(self, image, train, extent):
    features = self.backbone(image, train=train, extent=extent)
    # In evaluation the auxiliary head costs nothing; it is initialised always,
    # so that its parameters are there whichever mode comes first.
    extents = self.backbone.out_extents(extent)
    if self.auxiliary_head and (train or self.is_initializing()):
      given = _extents_for(self.auxiliary_head, extents[:-1])
      logits = self.auxiliary_head(features[:-1], train=train, **given)
      sow_output(self, 'auxiliary', logits, self.auxiliary_weight)
    given = _extents_for(self.head, extents)
    return at_least_float32(self.head(features, train=train, **given))

  def upsample(
    self, logits: Float[Array, 'b h w classes'], size: tuple[int, int]
  ) -> Float[Array, 'b ho wo classes']:
    """Logits at a height and width, as this network interpolates them."""
    return resize_bilinear(logits, size, align_corners=self.align_corners)

  @property
  def output_stride(self) -> int:
    """Pixels of the image per pixel of the last features."""
    return self.backbone.output_stride

  def out_extent(self, extent: Int[Array, 'b 2']) -> Int[Array, 'b 2']:
    """The images' extent in the logits of `low_resolution`."""
    stage = getattr(self.head, 'output_stage', -1)
    return self.backbone.out_extents(extent)[stage]

  def frozen_params(self) -> tuple[tuple[str, ...], ...]:
    """Paths in `params` of subtrees that never get a gradient."""
    heads = {'head': self.head, 'auxiliary_head': self.auxiliary_head}
    return tuple(
      (name, *path)
      for name, head in heads.items()
      for path in getattr(head, 'frozen_params', tuple)()
    )


def _extents_for(head, extents):
  """What a head is told of the images' sizes, see `models/heads`."""
  if hasattr(head, 'output_stage'):
    return {'extents': extents}
  return {'extent': extents[-1]}


def compute_dtype(name: str, platform: str | None = None) -> str:
  """The dtype that a configuration's `model.dtype` means.

  'auto' means bfloat16 on accelerators, and float32 on CPUs, which have no
  arithmetic of their own for the former. Any other name means itself.

  Args:
    name: The dtype in the configuration.
    platform: As JAX says it; None: this machine's.
  """
  if name != 'auto':
    return name
  platform = platform or jax.default_backend()
  return 'float32' if platform == 'cpu' else 'bfloat16'


def create_model(
  config: ml_collections.ConfigDict, num_classes: int
) -> Segmenter:
  """The network of a configuration.

  Args:
    config: The `model` part of a configuration (`emanet_jax.config`).
    num_classes: Classes of the data set.

  Raises:
    UserError: An unknown name or impossible option, saying which are known.
  """
  if config.dtype not in DTYPES:
    raise UserError(f'model.dtype is {config.dtype!r}; known are {DTYPES}')
  if config.convolution not in CONVOLUTIONS:
    raise UserError(
      f'model.convolution is {config.convolution!r}; known are {CONVOLUTIONS}'
    )
  if config.dtype == 'float64' and not jax.config.jax_enable_x64:
    raise UserError("model.dtype 'float64' needs JAX_ENABLE_X64=1")
  if not 0 <= config.norm_momentum < 1:
    raise UserError(
      f'model.norm_momentum is {config.norm_momentum}; it must be in [0, 1)'
    )
  if num_classes < 1:
    raise UserError(f'num_classes is {num_classes}; it must be ≥ 1')
  weight = config.auxiliary_head.weight
  if weight < 0:
    raise UserError(f'model.auxiliary_head.weight is {weight}; it must be ≥ 0')
  name, options = parts.chosen(config.backbone)
  backbone = parts.BACKBONES.create(name, config.norm_momentum, **options)
  given = num_classes, config.norm_momentum
  name, options = parts.chosen(config.head)
  head = parts.HEADS.create(name, *given, **options)
  name, options = parts.chosen(config.auxiliary_head, 'weight')
  second = parts.AUXILIARY_HEADS.create(name, *given, **options)
  return Segmenter(
    backbone,
    head,
    config.align_corners,
    compute_dtype(config.dtype),
    second if weight else None,
    weight,
    config.convolution,
  )
