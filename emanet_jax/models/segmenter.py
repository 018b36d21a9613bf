"""A segmentation network: backbone, head, upsampling to the input's size."""

import importlib
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.errors import UserError
from emanet_jax.models import heads, resnet
from emanet_jax.models.layers import resize_bilinear
from emanet_jax.models.norm import at_least_float32

DTYPES = ('float32', 'bfloat16', 'float64')
BACKBONES = {'resnet': resnet.create}

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
    head: Module turning them into logits at the last stage's resolution.
    align_corners: How logits are upsampled, see `resize_bilinear`.
    dtype: Compute dtype of the features, one of DTYPES. Under 'bfloat16' the
      parameters, statistics, EM arithmetic and logits stay float32; 'float64'
      is for comparisons and needs JAX's x64 mode.
  """

  backbone: nn.Module
  head: nn.Module
  align_corners: bool
  dtype: str

  def __call__(
    self, image: Float[Array, 'b h w 3'], *, train: bool = False
  ) -> Float[Array, 'b h w classes']:
    """Logits, float32, at the size of the normalised image."""
    logits = self.low_resolution(image, train=train)
    return resize_bilinear(
      logits, image.shape[1:3], align_corners=self.align_corners
    )

  def low_resolution(
    self, image: Float[Array, 'b h w 3'], *, train: bool = False
  ) -> Float[Array, 'b ho wo classes']:
    """Logits, float32, at the backbone's output resolution."""
    if image.ndim != 4 or image.shape[-1] != 3:
      raise UserError(f'image is {image.shape}; expected [b, h, w, 3]')
    if not jnp.issubdtype(image.dtype, jnp.floating):
      raise UserError(
        f'image is {image.dtype}; expected normalised values, as '
        'emanet_jax.models.segmenter.normalize makes them of RGB in 0…255'
      )
    image = jnp.asarray(image, self.dtype)
    features = self.backbone(image, train=train)
    return at_least_float32(self.head(features, train=train))

  def frozen_params(self) -> tuple[tuple[str, ...], ...]:
    """Paths in `params` of subtrees that never get a gradient."""
    return tuple(('head', *path) for path in self.head.frozen_params())


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
  if config.dtype == 'float64' and not jax.config.jax_enable_x64:
    raise UserError("model.dtype 'float64' needs JAX_ENABLE_X64=1")
  if not 0 <= config.norm_momentum < 1:
    raise UserError(
      f'model.norm_momentum is {config.norm_momentum}; it must be in [0, 1)'
    )
  if num_classes < 1:
    raise UserError(f'num_classes is {num_classes}; it must be ≥ 1')
  backbone, head = dict(config.backbone), dict(config.head)
  return Segmenter(
    _find_backbone(backbone.pop('name'))(
      norm_momentum=config.norm_momentum, **backbone
    ),
    _find_head(head.pop('name'))(num_classes, config.norm_momentum, **head),
    config.align_corners,
    config.dtype,
  )


def _find_backbone(name: str):
  if name not in BACKBONES:
    raise UserError(
      f'model.backbone.name is {name!r}; known are {sorted(BACKBONES)}'
    )
  return BACKBONES[name]


def _find_head(name: str):
  known = sorted(m.name for m in pkgutil.iter_modules(heads.__path__))
  if name not in known:
    raise UserError(f'model.head.name is {name!r}; known are {known}')
  return importlib.import_module(f'{heads.__name__}.{name}').create
