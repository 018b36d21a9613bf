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
from emanet_jax.errors import UserError
from emanet_jax.models import layers
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

_MMSEG = {
  'align_corners': False,
  'norm_momentum': 0.9,
  'backbone.stem_widths': (32, 32, 64),
  'backbone.multi_grid': (1, 1, 1),
}
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
}


def state_dict(name, seed):
  """mmsegmentation's tensors of a network on ResNet-50."""
  backbone = imagenet_shapes(stem=(32, 32, 64), stem_names=V1C)
  shapes = {
    f'backbone.{k}': s
    for k, s in backbone.items()
    if not k.startswith('fc.') and not k.endswith('num_batches_tracked')
  }
  shapes |= recipe.rival_shapes(name)
  return {k: recipe.weight(k, tuple(s), seed) for k, s in shapes.items()}


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


@functools.cache
def features(seed, height, width):
  """The backbone's, which all networks here have in common."""
  _, variables, config = network('fcn_linear')
  config = config.copy_and_resolve_references()
  config.convolution = 'flax'
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
      return model.apply(variables, features, method=heads)

  got = run(variables, features(seed, *size))
  step = int(figures['logits_step'])
  got['logits'] = got['logits'][:, ::step, ::step]
  for key, value in got.items():
    np.testing.assert_allclose(
      value, nhwc(figures[key]), rtol=0, atol=5e-6, err_msg=key
    )


def small(shapes):
  """The same names with an eighth of the widths; of a mask's side, too."""

  def shrink(size):
    return 8**2 if size == 65**2 else size // 8 if size > 24 else size

  return {name: tuple(map(shrink, shape)) for name, shape in shapes.items()}


WIDTHS = {
  'channels',
  'inner_channels',
  'mask_size',
  'num_codes',
  'num_maps',
  'region_channels',
}


def small_tensors(name):
  """A whole network on a small ResNet, as a file has it."""
  backbone = imagenet_shapes(
    stem=(4, 5, 8), stem_names=V1C, width=8, stage_sizes=(1, 2, 1, 3)
  )
  tensors = weights(
    small(recipe.rival_shapes(name))
    | {f'backbone.{k}': s for k, s in backbone.items() if 'fc.' not in k}
  )
  # ANNNet's shared projection is stored twice.
  shared = 'context.stages.0.key_project'
  copies = {
    k.replace('key', 'query'): v for k, v in tensors.items() if shared in k
  }
  return tensors | copies


def test_a_copy_that_is_none_is_told():
  tensors = small_tensors('annnet')
  name = 'decode_head.context.stages.0.query_project.bn.weight'
  tensors[name] = tensors[name] + 1
  with pytest.raises(UserError, match=f'one tensor for .*{name} and'):
    network_from_torch(tensors)


@pytest.mark.parametrize('name', NETWORKS)
def test_conversion(name):
  tensors = small_tensors(name)
  variables, got = network_from_torch(tensors)
  config = default_config().model
  config.update_from_flattened_dict({**_MMSEG, **NETWORKS[name]})
  config.update_from_flattened_dict(
    {
      'backbone.stage_sizes': (1, 2, 1, 3),
      'backbone.stem_widths': (4, 5, 8),
      'backbone.width': 8,
    }
  )
  for section in (config.head, config.auxiliary_head):
    for key in WIDTHS.intersection(section):
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


# Losses beside the main one whose names are others there.
_THEIR_NAMES = {'auxiliary': 'aux', 'regions': 'aux'}
# Of scores that a softmax compares, and in front of a normalisation.
_ZERO_GRADIENTS = (
  *('conv_mask.bias', 'g.conv.bias', 'phi.conv.bias'),
  *('a2_block.conv_a.bias', 'a2_block.conv_b.bias'),
  *('stages.0.value_project.bias', 'stages.0.out_project.bias'),
  'cca.key_conv.bias',
  'pam.key_project.bias',
  'dnl_block.theta.conv.bias',
)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*NETWORKS, 'psanet_official'])
def test_training_step_float64(name):
  with jax.enable_x64(True):
    _check_step(*network(name))


def _check_step(figures, variables, config):
  classes, batch, size = (
    int(figures[k]) for k in ('classes', 'train_batch', 'train_size')
  )
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict(
    {
      'dtype': 'float64',
      'norm_momentum': 1 - float(figures['bn_momentum']),
      'head.dropout_rate': 0.0,
      'auxiliary_head.dropout_rate': 0.0,
    }
  )
  model = create_model(config, classes)
  names = torch_from_variables(variables, 0)[1].names((3, 4, 6, 3))
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
  assert len(metrics) == 1 + sum(k.startswith('loss_all.') for k in figures)
  for key, value in metrics.items():
    name = key.removesuffix('_loss')
    name = f'loss_all.{_THEIR_NAMES.get(name, name)}'
    if key != 'grad_norm':
      expected = figures['loss' if key == 'loss' else name]
      np.testing.assert_allclose(value, expected, rtol=1e-9, err_msg=key)

  def leaf(tree, name):
    return np.asarray(traverse_util.flatten_dict(tree)[names[name]])

  velocity = {'params': state.opt_state[1].trace}
  for key, norm in zip(
    figures['grad_names'], figures['grad_norms'], strict=True
  ):
    gradient = leaf(velocity, key)
    if names[key][-1] == 'kernel':
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
