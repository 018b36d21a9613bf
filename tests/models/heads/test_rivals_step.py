"""A step of training gives mmsegmentation's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.models.pytorch.resnets import find_blocks
from emanet_jax.models.pytorch.weights import torch_from_variables
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import train_state
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step
from tests import recipe
from tests.models.heads.rivals import NETWORKS, network, nhwc

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
  'layers.3.2.bias',
)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*NETWORKS, 'psanet_official'])
def test_training_step_float64(name):
  with jax.enable_x64(True):
    _check_step(*network(name))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['danet', 'pspnet', 'upernet'])
def test_training_step_float32(name):
  """Within five times what float32 costs the same step in PyTorch."""
  figures = network(name)[0]
  before, state, metrics, names, _ = _step(*network(name), 'float32')
  np.testing.assert_allclose(metrics['loss'], figures['loss'], rtol=1e-6)
  theirs = dict(
    zip(figures['grad_names'], figures['grad_norms32'], strict=True)
  )
  for key, norm, gradient in _gradients(figures, before, state, names):
    if not key.endswith(_ZERO_GRADIENTS):
      bound = max(5 * abs(theirs[key] - norm), 1e-3 * norm)
      assert abs(np.linalg.norm(gradient) - norm) <= bound, key


def _step(figures, variables, config, dtype):
  """Variables before, state and metrics after, tensors' names, the model."""
  classes, batch, size = (
    int(figures[k]) for k in ('classes', 'train_batch', 'train_size')
  )
  config = config.copy_and_resolve_references()
  if 'drop_path_rate' in config.backbone:
    config.backbone.drop_path_rate = 0.0
  config.update_from_flattened_dict(
    {
      'dtype': dtype,
      'norm_momentum': 1 - float(figures['bn_momentum']),
      'head.dropout_rate': 0.0,
      'auxiliary_head.dropout_rate': 0.0,
    }
  )
  model = create_model(config, classes)
  names = torch_from_variables(variables, 0)[1].names(
    find_blocks(figures['grad_names'].tolist())
  )
  variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
  tx, _ = sgd.create(
    30_000, model.frozen_params(), learning_rate=float(figures['lr'])
  )
  before = dict(variables)
  params = variables.pop('params')
  state = train_state.TrainState(
    jnp.int32(0), params, variables, tx.init(params)
  )
  seed = int(figures['train_seed'])
  image = nhwc(recipe.image(seed, batch, size, size)).astype(dtype)
  label = recipe.label(seed, batch, size, size).astype(np.int32)
  step = functools.partial(
    train_step, model=model, tx=tx, loss_fn=create_loss(default_config().loss)
  )
  state, metrics = jax.jit(step)(
    state, {'image': image, 'label': label}, jax.random.key(0)
  )
  return before, state, metrics, names, model


def _leaf(tree, names, name):
  return np.asarray(traverse_util.flatten_dict(tree)[names[name]])


def _gradients(figures, before, state, names):
  """Yields each parameter's name there, its gradient's norm there, and ours."""
  velocity = {'params': state.opt_state[1].trace}
  for key, norm in zip(
    figures['grad_names'], figures['grad_norms'], strict=True
  ):
    gradient = _leaf(velocity, names, key)
    if names[key][-1] == 'kernel':
      gradient = gradient - 1e-4 * _leaf(before, names, key)
    yield key, norm, gradient


def _check_step(figures, variables, config):
  before, state, metrics, names, model = _step(
    figures, variables, config, 'float64'
  )
  assert len(metrics) == 1 + sum(k.startswith('loss_all.') for k in figures)
  for key, value in metrics.items():
    name = key.removesuffix('_loss')
    name = f'loss_all.{_THEIR_NAMES.get(name, name)}'
    if key != 'grad_norm':
      expected = figures['loss' if key == 'loss' else name]
      np.testing.assert_allclose(value, expected, rtol=1e-9, err_msg=key)

  for key, norm, gradient in _gradients(figures, before, state, names):
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
    value = _leaf(state.variables, names, key)
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
      value = _leaf(state.variables, names, key) - keep * _leaf(
        before, names, key
      )
      np.testing.assert_allclose(
        value.mean() / (1 - keep), mean, rtol=1e-9, atol=1e-9, err_msg=key
      )
  apply = functools.partial(model.apply, method='low_resolution')
  size = int(figures['train_size'])
  after = jax.jit(apply)(
    state.variables, nhwc(recipe.image(5, 1, size, size)).astype('float64')
  )
  # Stored as float32.
  np.testing.assert_allclose(
    after, nhwc(figures['logits_after']), rtol=0, atol=1e-7
  )
