"""Networks of mmsegmentation's, as their files have them, and their figures.

Where the figures come from: tests/golden/README.md.
"""

import functools

import numpy as np

from emanet_jax.models.pytorch.weights import network_from_torch
from tests import recipe
from tests.models.pytorch.torch_names import V1C, imagenet_shapes

MMSEG = {'align_corners': False, 'norm_momentum': 0.9}
_WITH_AUXILIARY = {'auxiliary_head.weight': 0.4}
# What the converter has to find out, at full size.
NETWORKS = {
  'fcn': {
    'head.name': 'fcn',
    'head.num_convs': 2,
    'head.concat_input': True,
    **_WITH_AUXILIARY,
  },
  'fcn_conv': {'head.name': 'fcn', 'head.num_convs': 1, **_WITH_AUXILIARY},
  'fcn_linear': {'head.name': 'fcn'},
  'pspnet': {
    'head.name': 'psp',
    'head.align_corners': False,
    **_WITH_AUXILIARY,
  },
  'deeplabv3': {
    'head.name': 'deeplabv3',
    'head.channels': 512,
    'head.projection_size': 3,
    **_WITH_AUXILIARY,
  },
  'deeplabv3_paper': {'head.name': 'deeplabv3'},
  'deeplabv3plus': {
    'head.name': 'deeplabv3plus',
    'head.channels': 512,
    'head.projection_size': 3,
    'head.separable': True,
    'head.align_corners': False,
    **_WITH_AUXILIARY,
  },
  'deeplabv3plus_plain': {
    'head.name': 'deeplabv3plus',
    'head.align_corners': False,
  },
  'a2net': {'head.name': 'a2', **_WITH_AUXILIARY},
  'annnet': {'head.name': 'ann', **_WITH_AUXILIARY},
  'ccnet': {'head.name': 'cc', **_WITH_AUXILIARY},
  'danet': {'head.name': 'da', **_WITH_AUXILIARY},
  'dnlnet': {'head.name': 'dnl', **_WITH_AUXILIARY},
  'encnet': {'head.name': 'enc', **_WITH_AUXILIARY},
  'encnet_lateral': {
    'head.name': 'enc',
    'head.use_lateral': True,
    **_WITH_AUXILIARY,
  },
  'gcnet': {'head.name': 'gc', **_WITH_AUXILIARY},
  'nonlocal': {'head.name': 'nonlocal', **_WITH_AUXILIARY},
  'ocrnet': {'head.name': 'ocr'},
  'psanet': {'head.name': 'psa', 'head.padded': True, **_WITH_AUXILIARY},
  'segformer_b0': {
    'backbone.name': 'mit',
    'head.name': 'segformer',
  },
  'upernet': {
    'head.name': 'uper',
    'backbone.output_stride': 32,
    **_WITH_AUXILIARY,
  },
}


def state_dict(name, seed):
  """mmsegmentation's tensors of a network on ResNet-50."""
  shapes = recipe.rival_shapes(name)
  tensors = {k: recipe.weight(k, tuple(s), seed) for k, s in shapes.items()}
  if not any(k.startswith('backbone.') for k in shapes):
    tensors |= _resnet(seed)
  return tensors


@functools.cache
def _resnet(seed):
  shapes = imagenet_shapes(stem=(32, 32, 64), stem_names=V1C)
  return {
    f'backbone.{k}': recipe.weight(f'backbone.{k}', tuple(s), seed)
    for k, s in shapes.items()
    if not k.startswith('fc.') and not k.endswith('num_batches_tracked')
  }


def nhwc(x):
  return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


# What no file of mmsegmentation's tells: PSANet's own form, and that DNLNet's
# temperature is float32 there, of float64 features, too.
CHANGES = {
  'dnlnet': {'head.temperature': float(np.float32(0.05))},
  'psanet_official': {'head.padded': False, 'align_corners': True},
}


@functools.cache
def network(name):
  """Figures; the network as the converter sets it up, and its variables."""
  figures = recipe.golden(f'rivals/{name}')
  tensors = 'psanet' if name.startswith('psanet') else name
  tensors = state_dict(tensors, int(figures['seed']))
  variables, config = network_from_torch(tensors)
  config.update_from_flattened_dict(CHANGES.get(name, {}))
  return figures, variables, config
