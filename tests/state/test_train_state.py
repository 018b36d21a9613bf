"""The training step: on any number of devices, in parts, again and again."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.resize import resize_bilinear
from emanet_jax.models.segmenter import create_model, normalize
from emanet_jax.runtime import sharding
from emanet_jax.state.init_from import take_weights
from emanet_jax.state.train_state import (
  TrainState,
  create_state,
  is_finite,
)
from emanet_jax.training.losses import create_loss
from emanet_jax.training.losses.cross_entropy import cross_entropy
from emanet_jax.training.optimizers import sgd
from emanet_jax.training.step import train_step

BATCH, CLASSES = 8, 3


def network(classes=CLASSES, **changes):
  config = default_config().model
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
  ('dropout_rate', 'accumulation_steps', 'devices'),
  [(0.0, 1, (1, 2, 4)), (0.5, 2, (1, 4))],
)
def test_any_number_of_devices_makes_the_same_step(
  start, batch, quick_jit, dropout_rate, accumulation_steps, devices
):
  # In float64, where the order of sums does not matter but a statistic that
  # is not global does.
  with jax.enable_x64(True):
    model = network(**{'dtype': 'float64', 'head.dropout_rate': dropout_rate})
    before = start(model, np.float64)
    step = quick_jit(step_of(model, accumulation_steps=accumulation_steps))
    results = []
    for count in devices:
      mesh = sharding.create_mesh(jax.devices('cpu')[:count])
      state = jax.device_put(before, sharding.replicated(mesh))
      parts = sharding.global_batch(batch, mesh)
      assert len(parts['image'].sharding.device_set) == count
      results.append(step(state, parts, jax.random.key(3)))
  assert_moved(before, results[0][0])
  for other in results[1:]:
    assert_close(other, results[0], rtol=1e-8, atol=1e-10)


def test_steps_repeat_freeze_count_and_compile_once(start, batch, quick_jit):
  before = start(network())
  step = quick_jit(step_of(network()), donate_argnums=0)

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


def test_accumulation_is_the_mean_over_passes_in_turn(start, batch, quick_jit):
  with jax.enable_x64(True):
    model = network(dtype='float64')
    before = start(model, np.float64)

    @quick_jit
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

    step = quick_jit(step_of(model, accumulation_steps=2))
    after, metrics = step(before, batch, jax.random.key(3))
    got = (after.params, after.model_state, metrics)
    expected = {
      'loss': sum(losses) / 2,
      'grad_norm': optax.tree.norm(mean),
    }
    expected = (params, model_state, expected)
    assert_close(got, expected, rtol=1e-8, atol=1e-10)
    assert not np.allclose(losses[0], losses[1], rtol=1e-6)


def shifted(variables):
  return jax.tree.map(lambda x: np.asarray(x) + 1, variables)


def test_a_backbone_alone_is_taken_and_the_rest_kept(start):
  state = start(network())
  source = {
    name: {'backbone': shifted(state.variables[name]['backbone'])}
    for name in ('params', 'batch_stats')
  }
  taken = take_weights(state, source, 'file')
  for name, tree in taken.variables.items():
    for part, leaves in tree.items():
      expected = state.variables[name][part]
      if part == 'backbone':
        expected = shifted(expected)
      assert_close(leaves, expected, rtol=0)
  assert taken.step == state.step


def report(caplog, state, source, **options):
  """The state with the source's weights, and the lines logged about them."""
  caplog.clear()
  with caplog.at_level('INFO', logger='absl'):
    taken = take_weights(state, source, 'file', **options)
  return taken, caplog.messages[-1].splitlines()


def test_another_number_of_classes_leaves_the_classifiers(start, caplog):
  auxiliary = {'auxiliary_head.weight': 0.4, 'auxiliary_head.channels': 8}
  state = start(network(**auxiliary))
  source = shifted(start(network(7, **auxiliary)).variables)
  taken, lines = report(caplog, state, source)
  for part, conv in (('head', 'conv_out'), ('auxiliary_head', 'conv')):
    own, given = state.params[part], source['params'][part]
    assert_close(taken.params[part]['classifier'], own['classifier'], rtol=0)
    assert_close(taken.params[part][conv], given[conv], rtol=0)
  assert lines == [
    'init_from file:',
    '  auxiliary_head: 5 of 7 tensors taken; left: auxiliary_head/classifier/'
    'bias: checkpoint (7,), model (3,) (and 1 more)',
    '  backbone: 95 of 95 tensors taken',
    '  head: 18 of 20 tensors taken; left: head/classifier/bias: checkpoint '
    '(7,), model (3,) (and 1 more)',
  ]


def test_another_head_is_taken_as_far_as_it_goes(start, caplog):
  state = start(network(**{'head.concat_input': True, 'head.num_bases': 6}))
  source = start(network(**{'auxiliary_head.weight': 0.4})).variables
  taken, lines = report(caplog, state, source)
  assert lines[1:] == [
    '  auxiliary_head: 7 tensors only in the checkpoint',
    '  backbone: 95 of 95 tensors taken',
    '  head: 19 of 25 tensors taken; left: head/conv_cat/conv/kernel: not in '
    'the checkpoint (and 4 more); left: head/ema_unit/mu: checkpoint (4, 16), '
    'model (6, 16)',
  ]
  fresh, own = state.variables, taken.variables
  assert_close(own['bases'], fresh['bases'], rtol=0)
  for name, tree in (('conv_cat', fresh), ('conv_in', source)):
    head = tree['params']['head'][name]
    assert_close(own['params']['head'][name], head, rtol=0)


def test_the_backbone_alone_is_taken_where_asked(start, caplog):
  state = start(network())
  source = shifted(state.variables)
  taken, lines = report(caplog, state, source, backbone_only=True)
  for part in ('params', 'batch_stats'):
    expected = {**state.variables[part], 'backbone': source[part]['backbone']}
    assert_close(taken.variables[part], expected, rtol=0)
  assert lines[1:] == [
    '  backbone: 95 of 95 tensors taken',
    '  head: 0 of 20 tensors taken: not in the checkpoint',
  ]


def test_another_backbone_is_refused_with_its_first_differences(start):
  state = start(network())
  deeper = start(network(**{'backbone.stage_sizes': (1, 1, 2, 1)})).variables
  wider = start(network(**{'backbone.stem_widths': (8, 9, 16)})).variables
  alien = {'params': {'dense': {'kernel': np.zeros((2, 3))}}}
  for source, count, message in (
    (deeper, 15, r'layer3_1/conv1/conv/kernel: only in the checkpoint\n'),
    (wider, 6, r'stem2/conv/kernel: checkpoint \(.*, 9\), model \(.*, 8\)\n'),
    (alien, 95, r'layer1_0/conv1/conv/kernel: not in the checkpoint\n'),
  ):
    with pytest.raises(UserError, match=message) as error:
      take_weights(state, source, 'a/file')
    text = str(error.value)
    assert 'a/file has another backbone' in text
    assert f'{count} tensors differ' in text
    assert len(text.splitlines()) == 7


@pytest.mark.parametrize('accumulation_steps', [1, 2])
def test_the_auxiliary_loss_joins_with_its_weight(
  start, batch, quick_jit, accumulation_steps
):
  with jax.enable_x64(True):
    options = {'dtype': 'float64', 'auxiliary_head.channels': 8}
    options |= {'auxiliary_head.dropout_rate': 0.0}
    model = network(**options, **{'auxiliary_head.weight': 0.4})
    before = start(model, np.float64)

    @quick_jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, model_state, image, label):
      """Of a network put together by hand from its parts."""

      def parts(m, x):
        features = m.backbone(x, train=True)
        heads = m.head, m.auxiliary_head
        return [
          resize_bilinear(
            head(features, train=True), (33, 33), align_corners=True
          )
          for head in heads
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
    step = quick_jit(step_of(model, accumulation_steps=accumulation_steps))
    after, metrics = step(before, batch, jax.random.key(3))
    assert metrics.keys() == {'loss', 'aux_loss', 'grad_norm'}
    np.testing.assert_allclose(metrics['aux_loss'], second, rtol=1e-10)
    np.testing.assert_allclose(metrics['loss'], main + 0.4 * second, rtol=1e-10)
    assert second > 0.1
    updates, _ = optimizer(model).update(grads, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)
    assert_close(after.params, params, rtol=1e-8, atol=1e-10)
    assert_moved(before, after)


def test_without_a_weight_there_is_no_auxiliary_head(start, batch, quick_jit):
  model = network()
  before = start(model)
  assert before.params.keys() == {'backbone', 'head'}
  _, metrics = quick_jit(step_of(model))(before, batch, jax.random.key(3))
  assert metrics.keys() == {'loss', 'grad_norm'}


def test_a_state_with_a_hole_is_noticed(start):
  state = start(network())
  assert is_finite(state)
  for part in ('params', 'model_state', 'opt_state'):
    leaves, tree = jax.tree.flatten(getattr(state, part))
    broken = leaves[0].at[...].set(jnp.nan)
    holed = jax.tree.unflatten(tree, [broken, *leaves[1:]])
    assert not is_finite(state.replace(**{part: holed}))
