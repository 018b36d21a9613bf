"""The training step: on any number of devices, in parts, again and again."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.models.resize import resize_bilinear
from emanet_jax.models.segmenter import create_model, normalize
from emanet_jax.runtime import sharding
from emanet_jax.state.train_state import TrainState, create_state
from emanet_jax.training.losses import create_loss
from emanet_jax.training.losses.cross_entropy import cross_entropy
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step

BATCH, CLASSES = 8, 3


def network(classes=CLASSES, **changes):
  config = default_config().model
  config.convolution = 'flax'  # compiles faster
  config.norm_momentum = 0.9
  config.backbone.stage_sizes = (1, 1, 1, 1)
  config.backbone.width = 8
  config.backbone.stem_widths = (8, 8, 16)
  config.head.update(channels=16, out_channels=16, num_bases=4)
  config.head.dropout_rate = 0.0
  config.update_from_flattened_dict(changes)
  return create_model(config, classes)


def optimizer(model):
  tx, _ = sgd.create(
    1,
    model.frozen_params(),
    learning_rate=0.05,
    weight_decay=1e-3,
    poly_power=0.0,
  )
  return tx


@pytest.fixture
def start(draw_variables):
  """Returns a function (model, dtype) -> a state before the first step."""

  def make(model, dtype=np.float32):
    state = draw_variables(model)
    state = jax.tree.map(lambda x: jnp.asarray(x, dtype), state)
    params = state.pop('params')
    opt_state = optimizer(model).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state)

  return make


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  label = rng.integers(0, CLASSES, (BATCH, 33, 33), np.uint8)
  label[:, :5] = 255
  image = rng.integers(0, 256, (BATCH, 33, 33, 3), np.uint8)
  return {'image': image, 'label': label}


def step_of(model, **options):
  return functools.partial(
    train_step,
    model=model,
    tx=optimizer(model),
    loss_fn=create_loss(default_config().loss),
    **options,
  )


def assert_close(got, expected, **tolerance):
  got = jax.tree.leaves_with_path(got)
  expected = jax.tree.leaves(expected)
  for (path, ours), theirs in zip(got, expected, strict=True):
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(ours, theirs, err_msg=name, **tolerance)


def assert_moved(before, after):
  """Every leaf of the model's state and of its learnt parameters changed."""
  for tree in ('params', 'model_state'):
    old = traverse_util.flatten_dict(getattr(before, tree))
    new = traverse_util.flatten_dict(getattr(after, tree))
    for path, value in old.items():
      frozen = path[:3] == ('head', 'ema_unit', 'conv_in')
      assert np.any(value != new[path]) != frozen, path


@pytest.mark.parametrize(
  ('convolution', 'dropout_rate', 'accumulation_steps', 'meshes'),
  [
    ('fast', 0.0, 1, ({'data': 4}, {'fsdp': 2, 'space': 2})),
    ('flax', 0.5, 2, ({'data': 2},)),
  ],
)
def test_any_mesh_of_devices_makes_the_same_step(
  start,
  batch,
  convolution,
  dropout_rate,
  accumulation_steps,
  meshes,
  monkeypatch,
):
  monkeypatch.setattr(sharding, '_LARGE', 0)
  # In float64, where the order of sums does not matter but a statistic that
  # is not global does.
  with jax.enable_x64(True):
    model = network(
      **{
        'dtype': 'float64',
        'convolution': convolution,
        'head.dropout_rate': dropout_rate,
      }
    )
    before = start(model, np.float64)
    step = step_of(model, accumulation_steps=accumulation_steps)
    results = []
    for axes in ({}, *meshes):
      count = math.prod(axes.values())
      rest = {k: v for k, v in axes.items() if k != 'data'}
      mesh = sharding.create_mesh(jax.devices('cpu')[:count], **rest)
      split = sharding.state_sharding(mesh, before)
      state = jax.device_put(before, split)
      parts = sharding.global_batch(batch, mesh)
      assert len(parts['image'].sharding.device_set) == count
      out = split, sharding.replicated(mesh)
      with jax.set_mesh(mesh):
        compiled = jax.jit(step, out_shardings=out)
        results.append(compiled(state, parts, jax.random.key(3)))
      kernel = results[-1][0].params['backbone']['stem1']['conv']['kernel']
      assert kernel.is_fully_replicated == (mesh.shape['fsdp'] == 1)
  assert_moved(before, results[0][0])
  for other in results[1:]:
    assert_close(other, results[0], rtol=1e-8, atol=1e-10)


def test_steps_repeat_freeze_count_and_compile_once(start, batch):
  before = start(network())
  step = jax.jit(step_of(network()), donate_argnums=0)

  def run():
    state = jax.tree.map(jnp.copy, before)
    losses = []
    for i in range(8):
      state, metrics = step(state, batch, jax.random.key(3))
      assert state.step == i + 1
      assert metrics['grad_norm'] > 0
      losses.append(float(metrics['loss']))
    return state, losses

  state, losses = run()
  assert step._cache_size() == 1
  again, losses_again = run()
  for ours, theirs in zip(
    jax.tree.leaves(state), jax.tree.leaves(again), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)
  assert losses == losses_again
  assert losses[-1] < losses[0]
  assert_moved(before, state)  # all but the frozen ones, which stay to the bit


class Pixelwise(nn.Module):
  """The least network that there is."""

  @nn.compact
  def __call__(self, image, *, train=False):
    return nn.Dense(CLASSES, name='classifier')(image)


def test_bytes_are_normalised_on_the_device_and_floats_taken_as_they_are(batch):
  model, tx = Pixelwise(), optax.sgd(0.1)
  state = create_state(model, tx, jax.random.key(0))
  step = jax.jit(
    functools.partial(
      train_step,
      model=model,
      tx=tx,
      loss_fn=create_loss(default_config().loss),
    )
  )
  floats = {**batch, 'image': normalize(jnp.asarray(batch['image']))}
  got, expected = (step(state, b, jax.random.key(3)) for b in (batch, floats))
  assert_close(got, expected, rtol=1e-5, atol=1e-6)
  kernel = state.params['classifier']['kernel']
  assert np.abs(got[0].params['classifier']['kernel'] - kernel).max() > 1e-3


def test_accumulation_is_the_mean_over_passes_in_turn(start, batch):
  with jax.enable_x64(True):
    model = network(dtype='float64')
    before = start(model, np.float64)

    @jax.jit
    def one_pass(model_state, image, label):
      def loss_of(params):
        logits, updated = model.apply(
          {'params': params, **model_state},
          normalize(image),
          train=True,
          mutable=['batch_stats', 'bases'],
        )
        return cross_entropy(logits, jnp.int32(label)), updated

      return jax.value_and_grad(loss_of, has_aux=True)(before.params)

    model_state, losses, gradients = before.model_state, [], []
    for i in range(2):
      image, label = batch['image'][i::2], batch['label'][i::2]
      (loss, model_state), grads = one_pass(model_state, image, label)
      losses.append(loss)
      gradients.append(grads)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *gradients)
    tx = optimizer(model)
    updates, _ = tx.update(mean, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)

    step = jax.jit(step_of(model, accumulation_steps=2))
    after, metrics = step(before, batch, jax.random.key(3))
    got = (after.params, after.model_state, metrics)
    expected = {
      'loss': sum(losses) / 2,
      'grad_norm': optax.tree.norm(mean),
    }
    expected = (params, model_state, expected)
    assert_close(got, expected, rtol=1e-8, atol=1e-10)
    assert not np.allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.parametrize('accumulation_steps', [1, 2])
def test_the_auxiliary_loss_joins_with_its_weight(
  start, batch, accumulation_steps
):
  with jax.enable_x64(True):
    options = {'dtype': 'float64', 'auxiliary_head.channels': 8}
    options |= {'auxiliary_head.dropout_rate': 0.0}
    model = network(**options, **{'auxiliary_head.weight': 0.4})
    before = start(model, np.float64)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, model_state, image, label):
      """Of a network put together by hand from its parts."""

      def parts(m, x):
        features = m.backbone(x, train=True)
        heads = (m.head, features), (m.auxiliary_head, features[:-1])
        return [
          resize_bilinear(head(f, train=True), (33, 33), align_corners=True)
          for head, f in heads
        ]

      logits, model_state = model.apply(
        {**model_state, 'params': params},
        normalize(image).astype('float64'),
        method=parts,
        mutable=['batch_stats', 'bases'],
      )
      main, second = (cross_entropy(x, jnp.int32(label)) for x in logits)
      return main + 0.4 * second, (model_state, (main, second))

    model_state, sums = before.model_state, []
    for i in range(accumulation_steps):
      part = {k: v[i::accumulation_steps] for k, v in batch.items()}
      grads, (model_state, losses) = gradient(
        before.params, model_state, **part
      )
      sums.append((grads, losses))
    grads, (main, second) = jax.tree.map(
      lambda *x: sum(x) / accumulation_steps, *sums
    )
    step = jax.jit(step_of(model, accumulation_steps=accumulation_steps))
    after, metrics = step(before, batch, jax.random.key(3))
    assert metrics.keys() == {'loss', 'auxiliary_loss', 'grad_norm'}
    np.testing.assert_allclose(metrics['auxiliary_loss'], second, rtol=1e-10)
    np.testing.assert_allclose(metrics['loss'], main + 0.4 * second, rtol=1e-10)
    assert second > 0.1
    updates, _ = optimizer(model).update(grads, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)
    assert_close(after.params, params, rtol=1e-8, atol=1e-10)
    assert_moved(before, after)


def test_without_a_weight_there_is_no_auxiliary_head(start, batch):
  model = network()
  before = start(model)
  assert before.params.keys() == {'backbone', 'head'}
  _, metrics = jax.jit(step_of(model))(before, batch, jax.random.key(3))
  assert metrics.keys() == {'loss', 'grad_norm'}
