"""PyTorch's twin of the network, the opponent of benchmarks, does our work."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.models.pytorch.weights import torch_from_variables
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import train_state
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step
from tests.numerics import relative_error

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('torch') is None, reason='PyTorch is not installed'
)
SIZES, CLASSES, RATE = (1, 2, 2, 3), 21, 0.01
HEADS = ('ema', 'da', 'deeplabv3', 'nonlocal', 'psp', 'uper')


def test_these_are_all_the_twins():
  from emanet_jax.tools.benchmark import network, torch_heads

  assert set(torch_heads.HEADS) == set(network._TORCH_HEADS) == set(HEADS)


def output_stride(head):
  return 32 if head == 'uper' else 8


def create(head='ema', dtype='float32', remat=False):
  config = default_config().model
  config.head.name = head
  config.backbone.output_stride = output_stride(head)
  config.dtype, config.backbone.remat = dtype, remat
  config.backbone.stage_sizes = SIZES
  config.head.dropout_rate = 0.0
  return create_model(config, CLASSES)


@functools.cache
def drawn(head, draw):
  return draw(create(head), (1, 65, 65, 3))


@pytest.fixture(scope='module')
def image():
  rng = np.random.default_rng(5)
  return rng.normal(size=(2, 49, 65, 3)).astype(np.float32)


def twin(variables, head='ema'):
  import torch

  from emanet_jax.tools.benchmark import torch_network

  network = torch_network.Network(
    SIZES, CLASSES, head, output_stride(head), dropout_rate=0.0
  )
  tensors, _ = torch_from_variables(variables, steps=0)
  tensors = {
    as_in_mmseg(k): torch.from_numpy(np.array(v)) for k, v in tensors.items()
  }
  network.load_state_dict(tensors)
  return network


def as_in_mmseg(name):
  """The authors' name of a tensor as the twin has it; other names stay."""
  if name.startswith(('backbone.', 'decode_head.')):
    return name
  first, number, *rest = name.split('.')
  if first != 'extractor':
    return f'decode_head.{name}'
  modules = {0: 'stem', 1: 'stem.7', 4: 'layer1'}
  modules |= {3 + i: f'layer{i}' for i in (2, 3, 4)}
  return '.'.join(['backbone', modules[int(number)], *rest])


def as_torch(image):
  import torch

  return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize('head', HEADS)
def test_logits_are_equal(head, draw_variables, image):
  import torch

  variables = drawn(head, draw_variables)
  with torch.inference_mode():
    expected = twin(variables, head).eval()(as_torch(image))
  expected = expected.permute(0, 2, 3, 1)
  got = jax.jit(create(head).apply)(variables, image)
  assert got.shape == (2, 49, 65, CLASSES)
  assert relative_error(np.asarray(got), expected.numpy()) < 1e-4


@pytest.mark.parametrize(
  ('head', 'remat'), [*((head, False) for head in HEADS), ('ema', True)]
)
def test_a_training_step_is_equal(head, remat, draw_variables, image):
  """In float64, where rounding does not blur the comparison; remat is ours."""
  import torch

  from emanet_jax.tools.benchmark import torch_network

  label = np.random.default_rng(6).integers(0, CLASSES, (2, 49, 65))
  label[:, :7] = 255
  variables = drawn(head, draw_variables)
  network = twin(variables, head).double().train()
  update = torch_network.create_optimizer(network, RATE)
  loss = torch_network.loss_fn(
    network(as_torch(image).double()), torch.from_numpy(label)
  )
  loss.backward()
  grads = [p.grad for p in network.parameters() if p.grad is not None]
  norm = sum(grad.square().sum() for grad in grads).sqrt().item()
  update.step()

  with jax.enable_x64(True):
    model = create(head, dtype='float64', remat=remat)
    tx, _ = sgd.create(
      1, model.frozen_params(), learning_rate=RATE, poly_power=0.0
    )
    rest = jax.tree.map(np.float64, variables)
    params = rest.pop('params')
    state = train_state.TrainState(
      jnp.zeros((), jnp.int32), params, rest, tx.init(params)
    )
    step = functools.partial(
      train_step,
      model=model,
      tx=tx,
      loss_fn=create_loss(default_config().loss),
    )
    after, metrics = jax.jit(step)(
      state,
      {'image': np.float64(image), 'label': label},
      jax.random.key(0),
    )
    np.testing.assert_allclose(metrics['loss'], loss.item(), rtol=1e-9)
    np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-7)
    got, _ = torch_from_variables(jax.device_get(after.variables), steps=1)
  start, _ = torch_from_variables(variables, steps=0)
  got = {as_in_mmseg(k): v for k, v in got.items()}
  start = {as_in_mmseg(k): v for k, v in start.items()}
  assert got.keys() == network.state_dict().keys()
  for name, expected in network.state_dict().items():
    if expected.ndim:
      moved = np.abs(expected.numpy() - start[name]).max()
      error = np.abs(got[name] - expected.numpy()).max()
      assert error <= 1e-6 * moved + 1e-12, name
