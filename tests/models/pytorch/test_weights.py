"""Conversion from PyTorch and back, on weights under the published names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models.pytorch.weights import (
  network_from_torch,
  torch_from_variables,
  variables_from_torch,
)
from emanet_jax.models.segmenter import create_model
from tests import recipe
from tests.models.pytorch.networks import NETWORKS, SMALL, SMALL_HEAD
from tests.models.pytorch.torch_names import (
  CLASSIC,
  V1C,
  authors_shapes,
  imagenet_shapes,
  mit_shapes,
  mmseg_shapes,
  torchvision_shapes,
  weights,
)


@pytest.fixture
def small():
  return weights(authors_shapes(**SMALL, **SMALL_HEAD))


def flat(variables):
  return traverse_util.flatten_dict(variables, sep='/')


@pytest.mark.parametrize('name', NETWORKS)
def test_the_tree_is_the_configured_networks(name):
  shapes, classes, changes = NETWORKS[name]
  variables, got = network_from_torch(weights(shapes))
  config = default_config().model
  config.update_from_flattened_dict(changes)
  assert got.to_dict() == config.to_dict()

  model = create_model(config, classes or 1)
  tree = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 65, 65, 3)))
  )
  expected = {
    path: leaf.shape
    for path, leaf in flat(tree).items()
    if not path.startswith('intermediates')
    and (classes or '/backbone/' in path)
  }
  variables = flat(variables)
  assert {path: v.shape for path, v in variables.items()} == expected
  assert {v.dtype for v in variables.values()} == {np.dtype('f4')}


SMALL_BASIC = {'stage_sizes': (1, 2, 1, 4), 'width': 8, 'basic': True}
SMALL_RESNET = {'stage_sizes': (1, 2, 1, 4), 'width': 8}


@pytest.mark.parametrize(
  'shapes',
  [
    authors_shapes(**SMALL, **SMALL_HEAD),
    mmseg_shapes(auxiliary=9, **SMALL, **SMALL_HEAD),
    mmseg_shapes(auxiliary=0, **SMALL, **SMALL_HEAD),
    imagenet_shapes(**SMALL),
    mmseg_shapes(stem=(8,), stem_names=CLASSIC, **SMALL_BASIC, **SMALL_HEAD),
    mmseg_shapes(**SMALL_BASIC, **SMALL_HEAD, stem=(4, 5, 8)),
    imagenet_shapes(**SMALL_BASIC, stem=(4, 5, 16)),  # wider than its blocks
    imagenet_shapes(**SMALL_RESNET, stem=(5,), stem_names=CLASSIC),
    imagenet_shapes((1, 1, 1, 3), 16, (5,), CLASSIC, 8, 8),
    imagenet_shapes(**SMALL_BASIC, stem=(8,), stem_names=CLASSIC),
    mit_shapes((2, 4, 10, 16), (1, 2, 1, 1)),
    *(
      torchvision_shapes(head, 3, 6, auxiliary, stem=(5,), **SMALL_RESNET)
      for head in ('deeplabv3', 'fcn')
      for auxiliary in (0, 4)
    ),
  ],
)
def test_back_gives_every_tensor_to_the_bit(shapes):
  tensors = weights(shapes)
  variables = variables_from_torch(tensors)
  back, _ = torch_from_variables(variables, 7)
  expected = {k: v for k, v in tensors.items() if not k.startswith('fc.')}
  assert_same_tensors(back, expected)
  assert_equal(variables_from_torch(back), variables)


def test_a_v1c_goes_back_by_the_names_of_the_authors_deep_stem():
  variables = variables_from_torch(
    weights(imagenet_shapes(stem_names=V1C, **SMALL))
  )
  back, layout = torch_from_variables(variables, 7)
  assert layout.title == 'a deep-stem ResNet'
  assert (
    back.keys() | {'fc.weight', 'fc.bias'} == imagenet_shapes(**SMALL).keys()
  )
  assert_equal(variables_from_torch(back), variables)


def assert_same_tensors(got, expected):
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    assert got[name].dtype == value.dtype, name
    np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize('name', ['emanet50', 'mmseg_emanet50'])
def test_the_published_names_load_strictly(name):
  tensors = recipe.state_dict(name, 0)
  back, _ = torch_from_variables(variables_from_torch(tensors), 30_000)
  shapes = recipe.shapes(name)
  assert {k: list(v.shape) for k, v in back.items()} == shapes
  counters = {k: back.pop(k) for k in shapes.keys() - tensors}
  assert all(k.endswith('num_batches_tracked') for k in counters)
  assert {(int(v), str(v.dtype)) for v in counters.values()} == {
    (30_000, 'int64')
  }
  assert_same_tensors(back, tensors)


def test_a_network_that_pytorch_has_not_is_refused(small):
  variables = variables_from_torch(small)
  del variables['params']['backbone']['stem3']
  with pytest.raises(UserError, match=r"known are: the authors' EMANet, torch"):
    torch_from_variables(variables, 0)


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


# mmsegmentation's module → the authors', for the same place.
SAME_PLACE = {
  'backbone.stem.0': 'extractor.0.0',
  'backbone.stem.4': 'extractor.0.4',
  'backbone.stem.7': 'extractor.1',
  'backbone.layer3.0.downsample.0': 'extractor.6.0.downsample.0',
  'backbone.layer4.3.bn2': 'extractor.7.3.bn2',
  'decode_head.ema_in_conv.conv': 'fc0.conv',
  'decode_head.ema_in_conv.bn': 'fc0.bn',
  'decode_head.ema_mid_conv.conv': 'emau.conv1',
  'decode_head.ema_out_conv.conv': 'emau.conv2.0',
  'decode_head.ema_out_conv.bn': 'emau.conv2.1',
  'decode_head.bottleneck.conv': 'fc1.0.conv',
  'decode_head.bottleneck.bn': 'fc1.0.bn',
  'decode_head.conv_seg': 'fc2',
}


def test_mmsegmentations_tensors_land_where_the_authors_do(small):
  tensors = weights(mmseg_shapes(auxiliary=9, **SMALL, **SMALL_HEAD))
  tensors['decode_head.ema_module.bases'] = small['emau.mu']
  for theirs, authors in SAME_PLACE.items():
    leaves = [k for k in tensors if k.rpartition('.')[0] == theirs]
    assert leaves, theirs
    for leaf in leaves:
      tensors[leaf] = small[leaf.replace(theirs, authors)]
  got, expected = (
    flat(variables_from_torch(tensors)),
    flat(variables_from_torch(small)),
  )
  same = {k for k in expected if np.array_equal(expected[k], got[k])}
  for authors in SAME_PLACE.values():
    place = {**CONVOLUTIONS, **NORMS}.get(authors)
    assert not place or any(f'/{place}/' in k for k in same), place
    assert all(k in same for k in expected if place and f'/{place}/' in k)
  assert 'bases/head/ema_unit/mu' in same
  for name, place in (
    ('decode_head.conv_cat.conv', 'head/conv_cat/conv'),
    ('auxiliary_head.convs.0.conv', 'auxiliary_head/conv/conv'),
    ('auxiliary_head.conv_seg', 'auxiliary_head/classifier'),
  ):
    kernel = tensors[f'{name}.weight'].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(got[f'params/{place}/kernel'], kernel)


def test_torchvisions_branches_are_read_where_they_are_made():
  tensors = weights(
    torchvision_shapes('deeplabv3', 3, 6, 4, stem=(5,), **SMALL_RESNET)
  )
  got = flat(variables_from_torch(tensors))['params/head/project/conv/kernel']
  theirs = tensors['classifier.0.project.0.weight'].transpose(2, 3, 1, 0)
  # 1×1, three dilated, the image's mean; the mean first.
  np.testing.assert_array_equal(got[:, :, :6], theirs[:, :, 24:])
  np.testing.assert_array_equal(got[:, :, 6:], theirs[:, :, :24])


def assert_equal(got, expected):
  got, expected = flat(got), flat(expected)
  assert got.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_array_equal(got[path], value, err_msg=path)


def test_the_prefix_of_data_parallel_is_dropped(small):
  prefixed = {f'module.{name}': value for name, value in small.items()}
  assert_equal(variables_from_torch(prefixed), variables_from_torch(small))


def test_the_prefix_of_a_backbone_in_a_classifier_is_dropped():
  shapes = imagenet_shapes(stem_names=V1C, **SMALL)
  tensors = weights(shapes)
  prefixed = {
    f'head.{k}' if k.startswith('fc.') else f'backbone.{k}': v
    for k, v in tensors.items()
  }
  assert_equal(variables_from_torch(prefixed), variables_from_torch(tensors))


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


def test_a_network_of_another_backbone_is_told_in_few_words():
  tensors = weights(mmseg_shapes(auxiliary=9, **SMALL, **SMALL_HEAD))
  other = {k.replace('layer', 'stage'): v for k, v in tensors.items()}
  message = misfit(other)
  assert 'no place for: backbone.stage1.0.bn1.bias' in message
  assert len(message.splitlines()) == 3
  assert re.search(r' and \d+ more$', message)
  assert len(message) < 3000


def test_an_unknown_source_is_refused():
  with pytest.raises(UserError, match=r'not a known network.*features\.0'):
    variables_from_torch({'features.0.weight': np.zeros((2, 3, 3, 3))})
