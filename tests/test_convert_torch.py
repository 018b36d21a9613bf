"""Conversion from PyTorch, on random weights under the published names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import app
from flax import traverse_util

from emanet_jax import checkpoint
from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.tools import convert_torch
from emanet_jax.tools.convert_torch import variables_from_torch
from tests.torch_names import authors_shapes, imagenet_shapes, weights

SMALL = {'stage_sizes': (1, 2, 1, 4), 'width': 8, 'stem': (4, 5, 7)}
SMALL_HEAD = {'classes': 3, 'channels': 12, 'bases': 6, 'out_channels': 10}


@pytest.fixture
def small():
  return weights(authors_shapes(**SMALL, **SMALL_HEAD))


def flat(variables):
  return traverse_util.flatten_dict(variables, sep='/')


def network_shapes(classes, **changes):
  """Path → shape of every variable of a configured network."""
  config = default_config().model
  config.update(changes)
  model = create_model(config, classes)
  tree = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 65, 65, 3)))
  )
  tree = {k: v for k, v in tree.items() if k != 'intermediates'}
  return {path: leaf.shape for path, leaf in flat(tree).items()}


SMALL_BACKBONE = {
  'stage_sizes': (1, 2, 1, 4),
  'multi_grid': (1, 2, 4, 4),
  'width': 8,
  'stem_widths': (4, 5, 7),
}
SMALL_UNIT = {'channels': 12, 'out_channels': 10, 'num_bases': 6}


@pytest.mark.parametrize(
  ('classes', 'torch_options', 'changes'),
  [
    (21, {}, {'backbone': {'depth': 50}}),
    (
      59,
      {'channels': 256},
      {'backbone': {'depth': 50}, 'head': {'channels': 256}},
    ),
    (
      3,
      {**SMALL, **SMALL_HEAD},
      {'backbone': SMALL_BACKBONE, 'head': SMALL_UNIT},
    ),
  ],
)
def test_the_tree_is_the_configured_networks(classes, torch_options, changes):
  shapes = authors_shapes(**{'classes': classes, **torch_options})
  variables = flat(variables_from_torch(weights(shapes)))
  expected = network_shapes(classes, **changes)
  assert {path: v.shape for path, v in variables.items()} == expected
  assert {v.dtype for v in variables.values()} == {np.dtype('f4')}


# PyTorch module → our module.
CONVOLUTIONS = {
  'extractor.0.0': 'backbone/stem1/conv',
  'extractor.4.0.conv1': 'backbone/layer1_0/conv1/conv',
  'extractor.5.1.conv2': 'backbone/layer2_1/conv2/conv',
  'extractor.6.0.downsample.0': 'backbone/layer3_0/downsample/conv',
  'extractor.7.3.conv3': 'backbone/layer4_3/conv3/conv',
  'fc0.conv': 'head/conv_in/conv',
  'emau.conv1': 'head/ema_unit/conv_in',
  'emau.conv2.0': 'head/ema_unit/conv_out/conv',
  'fc1.0.conv': 'head/conv_out/conv',
  'fc2': 'head/classifier',
}
NORMS = {
  'extractor.0.1': 'backbone/stem1/norm',
  'extractor.1': 'backbone/stem3/norm',
  'extractor.5.1.bn1': 'backbone/layer2_1/conv1/norm',
  'extractor.7.3.bn3': 'backbone/layer4_3/conv3/norm',
  'extractor.6.0.downsample.1': 'backbone/layer3_0/downsample/norm',
  'fc0.bn': 'head/conv_in/norm',
  'emau.conv2.1': 'head/ema_unit/conv_out/norm',
  'fc1.0.bn': 'head/conv_out/norm',
}


def test_every_kind_of_tensor_lands_in_its_place(small):
  got = flat(variables_from_torch(small))
  for name, path in CONVOLUTIONS.items():
    kernel = np.moveaxis(small[f'{name}.weight'], (0, 1), (3, 2))
    np.testing.assert_array_equal(got[f'params/{path}/kernel'], kernel)
    if f'{name}.bias' in small:
      bias = got[f'params/{path}/bias']
      np.testing.assert_array_equal(bias, small[f'{name}.bias'])
  for name, path in NORMS.items():
    for leaf, ours in (
      ('weight', f'params/{path}/scale'),
      ('bias', f'params/{path}/bias'),
      ('running_mean', f'batch_stats/{path}/mean'),
      ('running_var', f'batch_stats/{path}/var'),
    ):
      np.testing.assert_array_equal(got[ours], small[f'{name}.{leaf}'])
  mu = got['bases/head/ema_unit/mu']
  np.testing.assert_array_equal(mu, small['emau.mu'][0].T)


def assert_equal(got, expected):
  got, expected = flat(got), flat(expected)
  assert got.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_array_equal(got[path], value, err_msg=path)


def test_the_prefix_of_data_parallel_is_dropped(small):
  prefixed = {f'module.{name}': value for name, value in small.items()}
  assert_equal(variables_from_torch(prefixed), variables_from_torch(small))


def test_imagenet_weights_give_the_backbone_alone(small):
  def flat_name(name):
    stage = re.match(r'extractor\.([4-7])', name)
    if stage:
      return f'layer{int(stage[1]) - 3}{name[11:]}'
    stem = name.replace('extractor.0.', 'conv1.')
    return stem.replace('extractor.1.', 'bn1.')

  imagenet = weights(imagenet_shapes(**SMALL))
  same = {k: v for k, v in small.items() if k.startswith('extractor')}
  imagenet |= {flat_name(name): value for name, value in same.items()}
  assert imagenet.keys() == imagenet_shapes(**SMALL).keys()
  whole = variables_from_torch(small)
  expected = {
    name: {'backbone': whole[name]['backbone']}
    for name in ('params', 'batch_stats')
  }
  assert_equal(variables_from_torch(imagenet), expected)


def misfit(state_dict):
  with pytest.raises(UserError, match='do not fit') as error:
    variables_from_torch(state_dict)
  return str(error.value)


def test_unknown_missing_and_misshaped_tensors_are_told(small):
  message = misfit({**small, 'extractor.8.weight': np.zeros((2, 3))})
  assert 'no place for: extractor.8.weight (2, 3)' in message
  message = misfit({**small, 'fc0.conv.bias': np.zeros(12)})
  assert 'fc0.conv.bias (12,)' in message
  lacking = dict(small)
  del lacking['extractor.5.1.bn2.running_var']
  message = misfit(lacking)
  path = 'batch_stats/backbone/layer2_1/conv2/norm/var'
  assert f'the file lacks: extractor.5.1.bn2.running_var ({path})' in message
  message = misfit({**small, 'fc1.0.bn.weight': np.zeros(11)})
  assert 'fc1.0.bn.weight: file (11,), network (10,)' in message


def test_odd_shapes_are_told(small):
  mu = np.zeros((2, *small['emau.mu'].shape[1:]))
  assert 'emau.mu: file (2, ' in misfit({**small, 'emau.mu': mu})
  empty = {**small, 'fc2.weight': np.zeros((0, 10, 1, 1))}
  assert 'nothing is in: fc2.weight (0, 10, 1, 1)' in misfit(empty)
  scalar = {**small, 'fc0.bn.bias': np.zeros(())}
  assert 'fc0.bn.bias: file (), network (12,)' in misfit(scalar)
  stage = {k: v for k, v in small.items() if not k.startswith('extractor.6')}
  assert 'lacks: extractor.6.0.bn1.bias' in misfit(stage)


def test_a_gap_between_blocks_is_told(small):
  lacking = {k: v for k, v in small.items() if 'extractor.7.2.' not in k}
  assert 'params/backbone/layer4_2/conv1/conv/kernel' in misfit(lacking)


def test_an_unknown_source_is_refused():
  with pytest.raises(UserError, match=r'not a known network.*features\.0'):
    variables_from_torch({'features.0.weight': np.zeros((2, 3, 3, 3))})


def test_the_folder_written_reads_back_and_is_not_overwritten(
  small, tmp_path, monkeypatch
):
  monkeypatch.setattr(convert_torch, 'read_pth', lambda path: small)
  folder = tmp_path / 'weights'
  convert_torch.main(['convert_torch', 'some.pth', str(folder)])
  expected = variables_from_torch(small)
  assert_equal(checkpoint.load_variables(folder), expected)
  with pytest.raises(SystemExit, match=f'{folder} exists'):
    convert_torch.main(['convert_torch', 'some.pth', str(folder)])
  with pytest.raises(app.UsageError, match='two paths'):
    convert_torch.main(['convert_torch', 'some.pth'])


def test_pth_files_are_read(small, tmp_path):
  torch = pytest.importorskip('torch')
  tensors = {name: torch.as_tensor(value) for name, value in small.items()}
  for content in (tensors, {'net': tensors, 'step': 3}):
    torch.save(content, tmp_path / 'file.pth')
    read = convert_torch.read_pth(str(tmp_path / 'file.pth'))
    assert read.keys() == small.keys()
    for name, value in small.items():
      np.testing.assert_array_equal(read[name], value)
  (tmp_path / 'broken.pth').write_bytes(b'no weights')
  with pytest.raises(UserError, match=r'broken\.pth: not a readable'):
    convert_torch.read_pth(str(tmp_path / 'broken.pth'))
  with pytest.raises(UserError, match=r'none\.pth: no such file'):
    convert_torch.read_pth(str(tmp_path / 'none.pth'))
