"""The heads of other networks give mmsegmentation's numbers, from its files.

A step of training is in test_rivals_step.py.
"""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models import layers
from emanet_jax.models.pytorch.weights import (
  network_from_torch,
  torch_from_variables,
)
from emanet_jax.models.segmenter import create_model
from tests import recipe
from tests.models.heads.rivals import MMSEG, NETWORKS, network, nhwc
from tests.models.pytorch.torch_names import V1C, imagenet_shapes, weights


@pytest.fixture(scope='module', autouse=True)
def _forget_networks():
  """They are two gigabytes."""
  yield
  features.cache_clear()
  network.cache_clear()


# Blocks whose results heads classify in training alone: by what, and the
# reference's name of it.
IN_TRAINING = {
  'pam_conv_out': ('pam_classifier', 'pam_lowres'),
  'cam_conv_out': ('cam_classifier', 'cam_lowres'),
  'context': ('se_fc', 'se'),
}


@functools.cache
def features(source, output_stride, seed, height, width):
  """The backbone's, which networks on ResNets have in common by stride."""
  _, variables, config = network(source)
  config = config.copy_and_resolve_references()
  config.convolution = 'flax'
  if source == 'fcn_linear':
    config.backbone.output_stride = output_stride
  model = create_model(config, 21)

  @jax.jit
  def run(variables, image):
    with nn.intercept_methods(layers.like_flax):
      return model.apply(
        variables, image, method=lambda m, x: m.backbone(x, train=False)
      )

  return run(variables, nhwc(recipe.image(seed, 1, height, width)))


@pytest.mark.parametrize(
  'name',
  [
    *NETWORKS,
    'psanet_official',
    pytest.param('psanet_even', marks=pytest.mark.slow),
  ],
)
def test_forward(name):
  figures, variables, config = network(name)
  seed, *size = (int(figures[k]) for k in ('seed', 'height', 'width'))
  config = config.copy_and_resolve_references()
  config.convolution = 'flax'
  model = create_model(config, int(figures['classes']))

  @jax.jit
  def run(variables, features):
    def heads(model, features):
      low = model.head(features, train=False)
      outputs = {
        'logits_lowres': low,
        'logits': model.upsample(low, tuple(size)),
      }
      if model.auxiliary_head and 'aux_lowres' in figures:
        outputs['aux_lowres'] = model.auxiliary_head(features[:-1], train=False)
      return outputs

    with nn.intercept_methods(layers.like_flax):
      outputs, seen = model.apply(
        variables,
        features,
        method=heads,
        capture_intermediates=lambda module, _: module.name in IN_TRAINING,
        mutable=['intermediates'],
      )
    seen = seen.get('intermediates', {}).get('head', {})
    for block, (classifier, key) in IN_TRAINING.items():
      if block in seen and key in figures:
        x = jax.tree.leaves(seen[block]['__call__'])[-1]
        weights = variables['params']['head'][classifier]
        outputs[key] = x @ weights['kernel'][0, 0] + weights['bias']
    return outputs

  on_resnet = config.backbone.name == 'resnet'
  source = 'fcn_linear' if on_resnet else name
  got = run(variables, features(source, model.output_stride, seed, *size))
  step = int(figures['logits_step'])
  got['logits'] = got['logits'][:, ::step, ::step]
  assert got.keys() == figures.keys() & {
    *('logits_lowres', 'logits', 'aux_lowres'),
    *('pam_lowres', 'cam_lowres', 'se'),
  }
  step = int(figures.get('lowres_step', 1))
  for key in got.keys() - {'logits'}:
    got[key] = got[key][:, ::step, ::step]
  for key, value in got.items():
    np.testing.assert_allclose(
      value, nhwc(figures[key]), rtol=0, atol=5e-6, err_msg=key
    )


def small(shapes):
  """The same names with an eighth of the widths; of a mask's side, too."""

  def shrink(size):
    return 8**2 if size == 65**2 else size // 8 if size > 24 else size

  return {name: tuple(map(shrink, shape)) for name, shape in shapes.items()}


_SMALL_RESNET = {
  'backbone.stage_sizes': (1, 2, 1, 3),
  'backbone.stem_widths': (4, 5, 8),
  'backbone.width': 8,
  'backbone.multi_grid': (1, 1, 1),
}
_SMALL_MIT = {
  'backbone.stage_sizes': (2, 2, 2, 2),
  'backbone.widths': (4, 8, 20, 32),
}
_WIDTHS = {
  'channels',
  'inner_channels',
  'low_channels',
  'mask_size',
  'num_codes',
  'num_maps',
  'region_channels',
}


def small_tensors(name):
  """A whole small network, as a file has it, and its backbone's options."""
  shapes, backbone = small(recipe.rival_shapes(name)), _SMALL_MIT
  if not any(k.startswith('backbone.') for k in shapes):
    backbone = _SMALL_RESNET
    resnet = imagenet_shapes(
      stem=(4, 5, 8), stem_names=V1C, width=8, stage_sizes=(1, 2, 1, 3)
    )
    shapes |= {f'backbone.{k}': s for k, s in resnet.items() if 'fc.' not in k}
  tensors = weights(shapes)
  # ANNNet's shared projection is stored twice.
  shared = 'context.stages.0.key_project'
  copies = {
    k.replace('key', 'query'): v for k, v in tensors.items() if shared in k
  }
  return tensors | copies, backbone


def test_a_copy_that_is_none_is_told():
  tensors, _ = small_tensors('annnet')
  name = 'decode_head.context.stages.0.query_project.bn.weight'
  tensors[name] = tensors[name] + 1
  with pytest.raises(UserError, match=f'one tensor for .*{name} and'):
    network_from_torch(tensors)


@pytest.mark.parametrize('name', NETWORKS)
def test_conversion(name):
  tensors, backbone = small_tensors(name)
  variables, got = network_from_torch(tensors)
  config = default_config().model
  config.update_from_flattened_dict({**MMSEG, **NETWORKS[name], **backbone})
  for section in (config.head, config.auxiliary_head):
    for key in _WIDTHS.intersection(section):
      if name != 'fcn_linear' and section.get('weight', 1):
        section[key] //= 8
  assert got.to_dict() == config.to_dict()
  back, layout = torch_from_variables(variables, 7)
  assert layout.key == 'state_dict'
  counters = {k for k in back if k.endswith('num_batches_tracked')}
  assert back.keys() - counters == {
    k for k in tensors if not k.endswith('num_batches_tracked')
  }
  for key, value in tensors.items():
    if not key.endswith('num_batches_tracked'):
      np.testing.assert_array_equal(back[key], value, err_msg=key, strict=True)
