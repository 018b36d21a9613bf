"""The heads of other networks give mmsegmentation's numbers.

Figures and where they come from: tests/golden/README.md.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.models import layers
from emanet_jax.models.pytorch.resnets import stage_sizes
from emanet_jax.models.pytorch.weights import (
  network_from_torch,
  torch_from_variables,
)
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import train_state
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step
from tests import recipe
from tests.models.pytorch.torch_names import V1C, imagenet_shapes, weights

_MMSEG = {'align_corners': False, 'norm_momentum': 0.9}
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
  'nonlocal': {'head.name': 'nonlocal', **_WITH_AUXILIARY},
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
  if not any(k.startswith('backbone.') for k in shapes):
    backbone = imagenet_shapes(stem=(32, 32, 64), stem_names=V1C)
    shapes |= {
      f'backbone.{k}': s
      for k, s in backbone.items()
      if not k.startswith('fc.') and not k.endswith('num_batches_tracked')
    }
  return {k: recipe.weight(k, tuple(s), seed) for k, s in shapes.items()}


def nhwc(x):
  return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


@functools.cache
def network(name):
  """Figures; the network as the converter sets it up, and its variables."""
  figures = recipe.golden(f'rivals/{name}')
  variables, config = network_from_torch(state_dict(name, int(figures['seed'])))
  return figures, variables, config


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


@pytest.mark.parametrize('name', NETWORKS)
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
      if model.auxiliary_head:
        outputs['aux_lowres'] = model.auxiliary_head(features[:-1], train=False)
      return outputs

    with nn.intercept_methods(layers.like_flax):
      return model.apply(variables, features, method=heads)

  on_resnet = config.backbone.name == 'resnet'
  source = 'fcn_linear' if on_resnet else name
  got = run(variables, features(source, model.output_stride, seed, *size))
  step = int(figures['logits_step'])
  got['logits'] = got['logits'][:, ::step, ::step]
  assert got.keys() == figures.keys() & {
    'logits_lowres',
    'logits',
    'aux_lowres',
  }
  step = int(figures.get('lowres_step', 1))
  for key in got.keys() - {'logits'}:
    got[key] = got[key][:, ::step, ::step]
  for key, value in got.items():
    np.testing.assert_allclose(
      value, nhwc(figures[key]), rtol=0, atol=5e-6, err_msg=key
    )


def small(shapes):
  """The same names with an eighth of the widths."""
  return {
    name: tuple(s // 8 if s > 24 else s for s in shape)
    for name, shape in shapes.items()
  }


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


@pytest.mark.parametrize('name', NETWORKS)
def test_conversion(name):
  shapes, backbone = small(recipe.rival_shapes(name)), _SMALL_MIT
  if not any(k.startswith('backbone.') for k in shapes):
    backbone = _SMALL_RESNET
    resnet = imagenet_shapes(
      stem=(4, 5, 8), stem_names=V1C, width=8, stage_sizes=(1, 2, 1, 3)
    )
    shapes |= {f'backbone.{k}': s for k, s in resnet.items() if 'fc.' not in k}
  tensors = weights(shapes)
  variables, got = network_from_torch(tensors)
  config = default_config().model
  config.update_from_flattened_dict({**_MMSEG, **NETWORKS[name], **backbone})
  for section in (config.head, config.auxiliary_head):
    for key in ('channels', 'inner_channels', 'low_channels'):
      if key in section and name != 'fcn_linear' and section.get('weight', 1):
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


_ZERO_GRADIENTS = ('g.conv.bias', 'phi.conv.bias', 'layers.3.2.bias')


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_training_step_float64(name):
  with jax.enable_x64(True):
    _check_step(*network(name))


def _check_step(figures, variables, config):
  classes, batch, size = (
    int(figures[k]) for k in ('classes', 'train_batch', 'train_size')
  )
  config = config.copy_and_resolve_references()
  if 'drop_path_rate' in config.backbone:
    config.backbone.drop_path_rate = 0.0
  config.update_from_flattened_dict(
    {
      'dtype': 'float64',
      'norm_momentum': 1 - float(figures['bn_momentum']),
      'head.dropout_rate': 0.0,
      'auxiliary_head.dropout_rate': 0.0,
    }
  )
  model = create_model(config, classes)
  names = torch_from_variables(variables, 0)[1].names(
    stage_sizes(figures['grad_names'].tolist())
  )
  variables = jax.tree.map(lambda x: jnp.asarray(x, 'float64'), variables)
  tx, _ = sgd.create(
    30_000, model.frozen_params(), learning_rate=float(figures['lr'])
  )
  before = dict(variables)
  params = variables.pop('params')
  state = train_state.TrainState(
    jnp.int32(0), params, variables, tx.init(params)
  )
  seed = int(figures['train_seed'])
  image = nhwc(recipe.image(seed, batch, size, size)).astype('float64')
  label = recipe.label(seed, batch, size, size).astype(np.int32)
  step = functools.partial(
    train_step, model=model, tx=tx, loss_fn=create_loss(default_config().loss)
  )
  state, metrics = jax.jit(step)(
    state, {'image': image, 'label': label}, jax.random.key(0)
  )
  np.testing.assert_allclose(metrics['loss'], figures['loss'], rtol=1e-9)

  def leaf(tree, name):
    return np.asarray(traverse_util.flatten_dict(tree)[names[name]])

  velocity = {'params': state.opt_state[1].trace}
  for key, norm in zip(
    figures['grad_names'], figures['grad_norms'], strict=True
  ):
    gradient = leaf(velocity, key)
    if gradient.ndim in (2, 4):
      gradient = gradient - 1e-4 * leaf(before, key)
    zero = key.endswith(_ZERO_GRADIENTS)
    np.testing.assert_allclose(
      np.linalg.norm(gradient),
      norm,
      rtol=0 if zero else 1e-9,
      atol=1e-12 if zero else 0,
      err_msg=key,
    )
  for key, mean, absmean in zip(
    *(figures[k] for k in ('state_names', 'state_mean', 'state_absmean')),
    strict=True,
  ):
    value = leaf(state.variables, key)
    # The rate of learning is float32: 2e-8 of a step.
    np.testing.assert_allclose(
      value.mean(), mean, rtol=1e-9, atol=1e-10, err_msg=key
    )
    np.testing.assert_allclose(np.abs(value).mean(), absmean, rtol=1e-9)
  keep = 1 - float(figures['bn_momentum'])
  for ours, theirs in (
    ('running_mean', 'bn_batch_mean'),
    ('running_var', 'bn_batch_var'),
  ):
    for key, mean in zip(figures['bn_names'], figures[theirs], strict=True):
      key = f'{key}.{ours}'
      value = leaf(state.variables, key) - keep * leaf(before, key)
      np.testing.assert_allclose(
        value.mean() / (1 - keep), mean, rtol=1e-9, atol=1e-9, err_msg=key
      )
  apply = functools.partial(model.apply, method='low_resolution')
  after = jax.jit(apply)(
    state.variables, nhwc(recipe.image(5, 1, size, size)).astype('float64')
  )
  # Stored as float32.
  np.testing.assert_allclose(
    after, nhwc(figures['logits_after']), rtol=0, atol=1e-7
  )
