"""The backbone: its geometry, its size, and what it refuses."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.models import layers
from emanet_jax.models.backbones import resnet

DEEP, CLASSIC = (64, 64, 128), (64,)


def create(**options):
  """The authors' ResNet-101 with some options changed."""
  defaults = {
    'depth': 101,
    'stage_sizes': (),
    'stem_widths': DEEP,
    'multi_grid': (1, 2, 4),
    'output_stride': 8,
    'width': 64,
    'remat': False,
    'norm_momentum': 0.9,
  }
  return resnet.create(**{**defaults, **options})


def abstract_init(model, size=65):
  init = lambda x: model.init(jax.random.key(0), x, train=False)  # noqa: E731
  return jax.eval_shape(init, jax.ShapeDtypeStruct((1, size, size, 3), 'f4'))


def count(model):
  params = abstract_init(model)['params']
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def geometry(model):
  """Module name of every convolution → its (size, stride, dilation)."""
  found = {}

  def record(call, args, kwargs, context):
    conv = context.module
    if isinstance(conv, layers.Conv):
      found['/'.join(conv.path)] = (
        conv.kernel_size,
        conv.stride,
        conv.dilation,
      )
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    abstract_init(model)
  return found


# layer → (stride of its first block, dilation of every block).
AUTHORS = {
  8: {
    1: (1, [1, 1, 1]),
    2: (2, [1, 1, 1, 1]),
    3: (1, [1, 2, 2, 2, 2, 2]),
    4: (1, [2, 8, 16]),
  },
  16: {
    1: (1, [1, 1, 1]),
    2: (2, [1, 1, 1, 1]),
    3: (2, [1, 1, 1, 1, 1, 1]),
    4: (1, [1, 4, 8]),
  },
}


@pytest.mark.parametrize('output_stride', [8, 16])
def test_strides_and_dilations_are_the_authors(output_stride):
  expected = {
    'stem1/conv': (3, 2, 1),
    'stem2/conv': (3, 1, 1),
    'stem3/conv': (3, 1, 1),
  }
  for layer, (stride, dilations) in AUTHORS[output_stride].items():
    for i, dilation in enumerate(dilations):
      block, own = f'layer{layer}_{i}', 1 if i else stride
      expected[f'{block}/conv1/conv'] = (1, 1, 1)
      expected[f'{block}/conv2/conv'] = (3, own, dilation)
      expected[f'{block}/conv3/conv'] = (1, 1, 1)
      if i == 0:
        expected[f'{block}/downsample/conv'] = (1, own, 1)
  assert geometry(create(depth=50, output_stride=output_stride)) == expected


def test_a_flat_grid_gives_the_other_toolboxes_dilations():
  found = geometry(create(depth=50, multi_grid=(1, 1, 1)))
  dilations = [found[f'layer4_{i}/conv2/conv'][2] for i in range(3)]
  assert dilations == [2, 4, 4]


@pytest.mark.parametrize('size', [33, 48])
@pytest.mark.parametrize('output_stride', [8, 16])
def test_dilation_only_makes_the_features_denser(
  output_stride, size, draw_variables
):
  # "à trous": every (32 / output_stride)-th feature is the strided network's.
  options = {'stage_sizes': (1, 2, 2, 3), 'width': 4, 'stem_widths': (4, 4, 8)}
  dense = create(output_stride=output_stride, **options)
  strided = create(output_stride=32, **options)
  variables = draw_variables(strided)
  step = 32 // output_stride

  @jax.jit
  def last(x):
    return [m.apply(variables, x, train=False)[-1] for m in (dense, strided)]

  got, expected = last(jax.random.normal(jax.random.key(0), (1, size, size, 3)))
  assert got.shape[1] == -(-size // output_stride)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    got[:, ::step, ::step] / scale, expected / scale, atol=1e-5
  )


# torchvision's ResNets (25.557, 44.549, 60.193 million) without `fc`.
@pytest.mark.parametrize(
  ('depth', 'parameters'),
  [(50, 23_508_032), (101, 42_500_160), (152, 58_143_808)],
)
def test_parameter_counts(depth, parameters):
  assert count(create(depth=depth, stem_widths=CLASSIC)) == parameters
  # Three 3×3 for one 7×7, and 128 channels instead of 64 into layer1.
  deep = 9 * (3 * 64 + 64 * 64 + 64 * 128) - 49 * 3 * 64 + 2 * (64 + 128)
  deep += 64 * (64 + 256)
  assert count(create(depth=depth)) == parameters + deep


# torchvision's ResNeXts (25.029, 88.791) and Wide ResNets (68.883, 126.887).
@pytest.mark.parametrize(
  ('depth', 'groups', 'width_per_group', 'parameters'),
  [
    (50, 32, 4, 22_979_904),
    (101, 32, 8, 86_742_336),
    (50, 1, 128, 66_834_240),
    (101, 1, 128, 124_837_696),
  ],
)
def test_parameter_counts_in_groups_and_wide(
  depth, groups, width_per_group, parameters
):
  options = {'groups': groups, 'width_per_group': width_per_group}
  assert count(create(depth=depth, stem_widths=CLASSIC, **options)) == (
    parameters
  )


# torchvision's ResNets (11.690, 21.798 million) without `fc`.
@pytest.mark.parametrize(
  ('depth', 'parameters'), [(18, 11_176_512), (34, 21_284_672)]
)
def test_parameter_counts_of_basic_blocks(depth, parameters):
  assert count(create(depth=depth, stem_widths=CLASSIC)) == parameters


def test_of_a_basic_block_the_first_convolution_strides_and_dilates():
  found = geometry(create(depth=18, multi_grid=(1, 1)))
  assert [found[f'layer2_{i}/conv1/conv'] for i in (0, 1)] == [
    (3, 2, 1),
    (3, 1, 1),
  ]
  assert [found[f'layer4_{i}/conv1/conv'] for i in (0, 1)] == [
    (3, 1, 2),
    (3, 1, 4),
  ]
  second = {v for k, v in found.items() if k.endswith('conv2/conv')}
  assert second == {(3, 1, 1)}


@jax.enable_x64(True)
@pytest.mark.parametrize('output_stride', [8, 32])
def test_basic_blocks_see_nothing_outside_of_an_image(
  output_stride, draw_variables
):
  """Outside is noise."""
  options = {'depth': 18, 'width': 4, 'stem_widths': (4, 4, 8)}
  model = create(output_stride=output_stride, multi_grid=(1, 1), **options)
  variables = jax.tree.map(np.float64, draw_variables(model))

  @jax.jit
  def apply(x, extent=None):
    with nn.intercept_methods(layers.like_flax):
      return model.apply(variables, x, train=False, extent=extent)

  x = jax.random.normal(jax.random.key(0), (1, 97, 75, 3))
  extent = jnp.array([[65, 44]])
  alone = apply(x[:, :65, :44])
  for got, expected, own in zip(
    apply(x, extent), alone, model.out_extents(extent), strict=True
  ):
    rows, cols = own[0].tolist()
    assert expected.shape[1:3] == (rows, cols)
    np.testing.assert_allclose(got[:, :rows, :cols], expected, atol=1e-10)


def test_the_papers_count_for_resnet_101():
  assert count(create(depth=101)) / 1e6 == pytest.approx(42.62, abs=0.005)


def test_width_and_stages_are_free():
  model = create(stage_sizes=(2, 1, 1, 3), width=6, stem_widths=(4, 5, 7))
  x = jnp.zeros((1, 65, 65, 3))
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), x, train=False)
  )
  outputs = jax.eval_shape(lambda v: model.apply(v, x, train=False), variables)
  assert [o.shape for o in outputs] == [
    (1, 17, 17, 24),
    (1, 9, 9, 48),
    (1, 9, 9, 96),
    (1, 9, 9, 192),
  ]
  blocks = {name for name in variables['params'] if name.startswith('layer')}
  assert blocks == {
    *('layer1_0', 'layer1_1', 'layer2_0', 'layer3_0'),
    *('layer4_0', 'layer4_1', 'layer4_2'),
  }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'depth': 20}, r'backbone\.depth is 20.*\[18, 34, 50, 101, 152\]'),
    ({'depth': 18, 'groups': 2}, r'groups is 2 .*; basic blocks have 1 and'),
    ({'basic_blocks': True}, r'depth 101 has bottlenecks; .*\(18, 34\)'),
    ({'stage_sizes': (1, 2)}, r'stage_sizes is \(1, 2\).*four'),
    ({'stem_widths': (64, 128)}, r'stem_widths is \(64, 128\)'),
    ({'multi_grid': (1, 2)}, r'multi_grid \(1, 2\).*\(3\)'),
    ({'groups': 0}, r'groups is 0'),
    ({'width': 8, 'width_per_group': 4}, r'width_per_group 4;.*at least 64'),
    ({'output_stride': 4}, r'output_stride is 4.*8, 16 or 32'),
  ],
)
def test_impossible_networks_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    create(**options)
