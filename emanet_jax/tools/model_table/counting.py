"""What a network costs: parameters, multiply-adds, and maps that it makes.

Multiply-adds and memory follow torchstat, whose rules give the EMANet paper's
figures: a convolution k·k·c·n for each of its outputs, a normalisation two
operations an element, a ReLU one, a pooling one an element of its input; and of
each such layer the output, in float32. Three things of it are kept: functions
that are no layers (sums, products, resizing) do not count, a bottleneck's three
ReLUs count as one of its last output, and memory is told in MiB.
"""

import collections
import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from emanet_jax.models import flops
from emanet_jax.models.backbones.resnet import (
  BasicBlock,
  Bottleneck,
  ResNet,
)
from emanet_jax.models.layers import Conv, ConvNorm
from emanet_jax.models.norm import BatchNorm
from emanet_jax.models.segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of a network's modules, by their paths.

  Attributes:
    parameters: Numbers in `params` and `bases`.
    convolutions: Multiply-adds of convolutions.
    products: Of all other matrix products: attention, EM, interpolation.
    layers: Operations of normalisations, ReLUs and poolings.
    outputs: Elements that layers put out.
  """

  parameters: dict[str, int]
  convolutions: dict[str, int]
  products: dict[str, int]
  layers: dict[str, int]
  outputs: dict[str, int]


def measure(model: Segmenter, size: int) -> Cost:
  """The cost of one image of size × size; nothing is compiled."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  parameters = collections.Counter()
  for collection in ('params', 'bases'):
    leaves = traverse_util.flatten_dict(variables.get(collection, {}))
    for path, leaf in leaves.items():
      parameters['/'.join(path[:-1])] += math.prod(leaf.shape)
  layers, outputs, convolutions = (collections.Counter() for _ in range(3))
  with nn.intercept_methods(_listening(layers, outputs, convolutions)):
    operations = flops.by_module(_low_resolution(model), variables, image)
  products = {
    path: count // 2
    for path, count in operations.items()
    if path not in convolutions
  }
  return Cost(parameters, convolutions, products, layers, outputs)


def total(
  counts: dict[str, int], part: str, shares: dict[str, float] | None = None
) -> float:
  """The sum over a module and those in it.

  Args:
    counts: By path.
    part: The module.
    shares: Of modules in it that count only so much, by their paths.
  """

  def share(path):
    given = [
      value for name, value in (shares or {}).items() if _within(path, name)
    ]
    return given[0] if given else 1

  return float(
    sum(
      count * share(path)
      for path, count in counts.items()
      if _within(path, part)
    )
  )


def _within(path: str, part: str) -> bool:
  return path == part or path.startswith(f'{part}/')


def _low_resolution(model: Segmenter) -> Callable:
  """The evaluation up to the logits that are not enlarged yet."""

  def apply(variables, image):
    return model.apply(variables, image, method='low_resolution', train=False)

  return apply


def _listening(layers, outputs, convolutions) -> Callable:
  """An interceptor that counts what layers do."""

  def add(context, operations, elements):
    path = '/'.join(context.module.path)
    layers[path] += operations
    outputs[path] += elements

  def listen(call, args, kwargs, context):
    out = call(*args, **kwargs)
    if context.method_name != '__call__':
      return out
    layer = context.module
    if isinstance(layer, Conv):
      add(context, 0, out.size)
      kernel = layer.variables['params']['kernel']
      path = '/'.join(layer.path)
      convolutions[path] += out.size * kernel.size // layer.features
    elif isinstance(layer, nn.Dropout):
      add(context, 0, out.size)
    elif isinstance(layer, BatchNorm):
      add(context, 2 * out.size, out.size)
    elif isinstance(layer, BasicBlock | Bottleneck):
      add(context, out.size, out.size)  # its ReLU
    elif isinstance(layer, ResNet):  # its pooling, of every second pixel
      _, height, width, _ = args[0].shape
      before = ((height + 1) // 2) * ((width + 1) // 2) * layer.stem_widths[-1]
      pooled = math.prod(out[0].shape[1:3]) * layer.stem_widths[-1]
      add(context, before, pooled)
    elif (
      isinstance(layer, ConvNorm)
      and layer.use_relu
      and not isinstance(layer.parent, BasicBlock | Bottleneck)
    ):
      add(context, out.size, out.size)
    return out

  return listen
