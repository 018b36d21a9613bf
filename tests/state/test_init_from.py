"""Weights are taken as far as they fit; what was left is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.state.init_from import take_weights
from emanet_jax.state.train_state import TrainState, is_finite

CLASSES = 3


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


@pytest.fixture
def start(draw_variables):
  """Returns a function (model, dtype) -> a state before the first step."""

  def make(model, dtype=np.float32):
    state = draw_variables(model)
    state = jax.tree.map(lambda x: jnp.asarray(x, dtype), state)
    params = state.pop('params')
    return TrainState(
      jnp.zeros((), jnp.int32), params, state, {'trace': params}
    )

  return make


def assert_close(got, expected, **tolerance):
  got = jax.tree.leaves_with_path(got)
  expected = jax.tree.leaves(expected)
  for (path, ours), theirs in zip(got, expected, strict=True):
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(ours, theirs, err_msg=name, **tolerance)


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


def test_a_state_with_a_hole_is_noticed(start):
  state = start(network())
  assert is_finite(state)
  for part in ('params', 'model_state', 'opt_state'):
    leaves, tree = jax.tree.flatten(getattr(state, part))
    broken = leaves[0].at[...].set(jnp.nan)
    holed = jax.tree.unflatten(tree, [broken, *leaves[1:]])
    assert not is_finite(state.replace(**{part: holed}))
