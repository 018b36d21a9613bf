"""The same weights give the same numbers as the authors' PyTorch code."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.models.ema_unit import EMAUnit
from emanet_jax.models.pytorch import layouts
from emanet_jax.models.pytorch.resnets import Blocks
from emanet_jax.models.pytorch.weights import network_from_torch
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import train_state
from emanet_jax.tools.convert_torch import variables_from_torch
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step
from tests import recipe

_FORWARD_ATOL = 2e-4


def _nhwc(x):
  return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _model(figures, dtype='float32'):
  config = default_config().model
  config.dtype = dtype
  config.backbone.depth = int(figures['n_layers'])
  config.backbone.output_stride = int(figures['stride'])
  config.head.num_stages = int(figures['stages'])
  config.head.dropout_rate = 0.0
  return create_model(config, 21)


@pytest.mark.parametrize(
  ('name', 'weights'),
  [
    ('forward_r50_os8', 'emanet50'),
    ('forward_r50_os8_t8', 'emanet50'),
    ('forward_r101_os16', 'emanet101'),
  ],
)
def test_forward(name, weights):
  figures = recipe.golden(name)
  seed = int(figures['seed'])
  model = _model(figures)
  variables = variables_from_torch(recipe.state_dict(weights, seed))
  image = _nhwc(
    recipe.image(seed, *(int(figures[k]) for k in ('batch', 'height', 'width')))
  )

  @jax.jit
  def run(variables, image):
    logits, sown = model.apply(variables, image, mutable=['intermediates'])
    low = model.apply(variables, image, method='low_resolution')
    features = model.apply(
      variables, image, method=lambda m, x: m.backbone(x, train=False)[-1]
    )
    return logits, low, features, sown['intermediates']['head']['ema_unit']

  logits, low, features, sown = run(variables, image)
  np.testing.assert_allclose(
    low, _nhwc(figures['logits_lowres']), rtol=0, atol=_FORWARD_ATOL
  )
  np.testing.assert_allclose(
    logits[:, ::3, ::3], _nhwc(figures['logits']), rtol=0, atol=_FORWARD_ATOL
  )
  np.testing.assert_allclose(
    sown['bases'][0], figures['mu'].transpose(0, 2, 1), rtol=0, atol=1e-5
  )
  np.testing.assert_allclose(
    features.mean((1, 2)), figures['features_mean'], rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    features.std((1, 2), ddof=1), figures['features_std'], rtol=1e-3, atol=1e-5
  )


def test_mmsegmentation():
  """Its network, its auxiliary head included, as the converter sets it up."""
  figures = recipe.golden('mmseg_r50_d8')
  seed, *shape = (int(figures[k]) for k in ('seed', 'height', 'width'))
  variables, config = network_from_torch(
    recipe.state_dict('mmseg_emanet50', seed)
  )
  model = create_model(config, int(figures['classes']))

  @jax.jit
  def run(variables, image):
    return (
      model.apply(variables, image),
      model.apply(variables, image, method='low_resolution'),
      model.apply(variables, image, method=_auxiliary),
    )

  def _auxiliary(model, image):
    features = model.backbone(image, train=False)
    return model.auxiliary_head(features[:-1], train=False)

  logits, low, auxiliary = run(variables, _nhwc(recipe.image(seed, 1, *shape)))
  for got, name in (
    (logits[:, ::3, ::3], 'logits'),
    (low, 'logits_lowres'),
    (auxiliary, 'aux_lowres'),
  ):
    np.testing.assert_allclose(
      got, _nhwc(figures[name]), rtol=0, atol=_FORWARD_ATOL, err_msg=name
    )


@pytest.mark.parametrize('stages', [1, 3, 8])
def test_unit(stages):
  figures = recipe.golden(f'emau_t{stages}')
  seed, channels, bases, height, width = (
    int(figures[k]) for k in ('seed', 'channels', 'bases', 'height', 'width')
  )
  tensor = functools.partial(recipe.weight, seed=seed)
  norm = {
    leaf: tensor(f'emau.conv2.1.{leaf}', (channels,))
    for leaf in ('weight', 'bias', 'running_mean', 'running_var')
  }

  def kernel(name):
    value = tensor(name, (channels, channels, 1, 1))
    return value.transpose(2, 3, 1, 0)

  conv_in = {
    'kernel': kernel('emau.conv1.weight'),
    'bias': tensor('emau.conv1.bias', (channels,)),
  }
  variables = {
    'params': {
      'conv_in': conv_in,
      'conv_out': {
        'conv': {'kernel': kernel('emau.conv2.0.weight')},
        'norm': {'scale': norm['weight'], 'bias': norm['bias']},
      },
    },
    'batch_stats': {
      'conv_out': {
        'norm': {'mean': norm['running_mean'], 'var': norm['running_var']}
      }
    },
    'bases': {'mu': tensor('emau.mu', (1, channels, bases))[0].T},
  }
  x = np.random.default_rng([3, seed]).standard_normal(
    (2, channels, height, width)
  )
  x = _nhwc(np.maximum(0, x).astype(np.float32))
  unit = EMAUnit(num_bases=bases, num_stages=stages)
  output, sown = unit.apply(
    variables, x, train=False, mutable=['intermediates']
  )
  np.testing.assert_allclose(
    output, _nhwc(figures['output']), rtol=0, atol=_FORWARD_ATOL
  )
  np.testing.assert_allclose(
    sown['intermediates']['bases'][0],
    figures['mu'].transpose(0, 2, 1),
    rtol=0,
    atol=1e-5,
  )


def _train(figures, dtype, steps):
  """Five steps of the authors' recipe; states, losses and first gradients."""
  model = _model(figures, dtype)
  state_dict = recipe.state_dict('emanet50', int(figures['seed']))
  variables = jax.tree.map(
    lambda x: jax.numpy.asarray(x, dtype), variables_from_torch(state_dict)
  )
  tx, _ = sgd.create(
    30_000, model.frozen_params(), learning_rate=float(figures['lr'])
  )
  params = variables.pop('params')
  state = train_state.TrainState(
    jax.numpy.int32(0), params, variables, tx.init(params)
  )
  step_fn = jax.jit(
    functools.partial(
      train_step,
      model=model,
      tx=tx,
      loss_fn=create_loss(default_config().loss),
    ),
    # As users' programs, or nearly: at level 0, jax 0.12 rounds more.
    compiler_options={
      'xla_backend_optimization_level': int(dtype == 'float32')
    },
  )
  shape = [int(figures[k]) for k in ('batch', 'size', 'size')]
  states, trace = [state], []
  for step in range(1, steps + 1):
    image = _nhwc(recipe.image(step, *shape)).astype(dtype)
    label = recipe.label(step, *shape).astype(np.int32)
    state, metrics = step_fn(
      state, {'image': image, 'label': label}, jax.random.key(0)
    )
    states.append(state)
    trace.append(float(metrics['loss']))
  image = _nhwc(recipe.image(5, *shape)).astype(dtype)[:1]
  return model, states, np.array(trace), image


_NAMES = layouts.AUTHORS.names(Blocks((3, 4, 6, 3)))


def _leaf(tree, torch_name):
  """The leaf of a variables dict that a PyTorch tensor's name stands for."""
  value = traverse_util.flatten_dict(tree)[_NAMES[torch_name]]
  return np.asarray(value, np.float64)


def _first_gradient(states, torch_name):
  """Gradient of step one, from the velocity after it.

  torch.optim.SGD's and our velocity starts as gradient + decay × weight.
  """
  velocity = {'params': states[1].opt_state[1].trace}
  gradient = _leaf(velocity, torch_name)
  if gradient.ndim == 4:
    gradient = gradient - 1e-4 * _leaf({'params': states[0].params}, torch_name)
  return gradient


def _gradient_norms(states, names):
  return np.array(
    [np.linalg.norm(_first_gradient(states, str(name))) for name in names]
  )


def _mu(state):
  return np.asarray(state.model_state['bases']['head']['ema_unit']['mu']).T


@pytest.fixture(scope='module')
def float32_run():
  figures = recipe.golden('train_r50_os8')
  return figures, *_train(figures, 'float32', 2)


def test_training_float32(float32_run):
  figures, _, states, trace, _ = float32_run
  np.testing.assert_allclose(trace[0], figures['losses'][0], rtol=0, atol=1e-5)
  # Later steps amplify rounding until the authors' own code does not repeat
  # itself to 2e-3 (tests/golden/README.md); float64 below covers all five.
  np.testing.assert_allclose(trace, figures['losses'][:2], rtol=0, atol=2e-3)
  np.testing.assert_allclose(
    _mu(states[1]), figures['mu_first'][0], rtol=0, atol=1e-5
  )


def test_gradients_float32(float32_run):
  """Norms parameter by parameter, against the recorded and the exact ones.

  The recorded float32 norms are themselves up to 1.55e-3 off the float64 ones
  (four of them by more than 1e-3), so each is held to the exact norm, and to
  the recorded one within the sum of both errors.
  """
  figures, _, states, _, _ = float32_run
  exact = recipe.golden('train_r50_os8_float64')
  recorded = dict(
    zip(figures['grad_names'], figures['grad_norms'], strict=True)
  )
  norms = _gradient_norms(states, exact['grad_names'])
  error = np.abs(norms / exact['grad_norms'] - 1)
  assert error.max() < 1.6e-3
  assert np.median(error) < 1e-4
  assert np.quantile(error, 0.95) < 1e-3
  reference = [recorded[name] for name in exact['grad_names']]
  np.testing.assert_allclose(norms, reference, rtol=3e-3)
  # The authors' conv1 gets a gradient of zero, and so does ours.
  without = sorted(set(recorded) - set(exact['grad_names']))
  assert without == ['emau.conv1.bias', 'emau.conv1.weight']
  velocity = {'params': states[1].opt_state[1].trace}
  assert not any(_leaf(velocity, name).any() for name in without)
  for name, atol in (('fc2.weight', 1e-4), ('extractor.0.0.weight', 2e-2)):
    reference = figures[f'grad.{name}'].transpose(2, 3, 1, 0)
    error = np.abs(_first_gradient(states, name) - reference).max()
    assert error <= atol * np.abs(reference).max()


def test_training_float64():
  """All five steps, free of rounding: losses, gradients, statistics, logits."""
  figures = recipe.golden('train_r50_os8_float64')
  with jax.enable_x64(True):
    model, states, trace, image = _train(figures, 'float64', 5)
    norms = _gradient_norms(states, figures['grad_names'])
    np.testing.assert_allclose(norms, figures['grad_norms'], rtol=1e-7)
    logits = jax.jit(model.apply)(states[-1].variables, image)
    np.testing.assert_allclose(trace, figures['losses'], rtol=1e-8)
    np.testing.assert_allclose(
      _mu(states[1]), figures['mu_first'][0], rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(
      _mu(states[-1]), figures['mu_last'][0], rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(
      logits[:, ::3, ::3], _nhwc(figures['logits_after']), rtol=0, atol=1e-6
    )
    for name, mean, absmean in zip(
      figures['state_names'],
      figures['state_mean'],
      figures['state_absmean'],
      strict=True,
    ):
      value = _leaf(states[-1].variables, str(name))
      np.testing.assert_allclose(value.mean(), mean, rtol=1e-6, atol=1e-9)
      np.testing.assert_allclose(np.abs(value).mean(), absmean, rtol=1e-6)
