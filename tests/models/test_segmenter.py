"""The whole network: its creation, its size, its precision, its gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models import layers, segmenter
from emanet_jax.models.convolution import conv2d
from emanet_jax.models.resize import resize_bilinear
from tests.numerics import normal, relative_error


def tiny(**changes):
  """A configuration of a network of some thousand parameters."""
  config = default_config().model
  config.backbone.stage_sizes = (1, 1, 1, 1)
  config.backbone.width = 8
  config.backbone.stem_widths = (8, 8, 16)
  config.head.update(channels=16, out_channels=16, num_bases=4)
  config.head.dropout_rate = 0.0
  config.update_from_flattened_dict(changes)
  return config


def image(*shape):
  return jax.random.normal(jax.random.key(1), (*shape, 3))


@pytest.fixture(scope='module')
def variables(draw_variables):
  return draw_variables(segmenter.create_model(tiny(), 5))


@pytest.mark.parametrize(
  ('key', 'value', 'known'),
  [
    ('dtype', 'float16', 'bfloat16'),
    ('convolution', 'winograd', 'flax'),
    ('backbone.name', 'vgg', 'resnet'),
    ('head.name', 'unet', 'ema'),
    ('head.gradient', 'some', 'cut'),
    ('backbone.output_stride', 7, '8, 16 or 32'),
  ],
)
def test_unknown_names_list_the_known_ones(key, value, known):

  def create():
    segmenter.create_model(tiny(**{key: value}), 5)

  with pytest.raises(UserError, match=f'model.{key} is .*{known}') as error:
    create()
  assert str(value) in str(error.value)


def abstract(**changes):
  config = default_config().model
  config.update_from_flattened_dict(changes)
  model = segmenter.create_model(config, 21)
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 65, 65, 3)))
  )


def count(tree, *names):
  return sum(
    math.prod(leaf.shape)
    for path, leaf in traverse_util.flatten_dict(tree).items()
    if not names or path[0] in names
  )


@pytest.mark.parametrize(
  ('channels', 'head', 'added'),
  [(512, 11_149_589, 9.997), (256, 5_446_677, 4.87)],
)
def test_parameter_counts_are_the_papers(channels, head, added):
  tree = abstract(**{'head.channels': channels})
  params = tree['params']
  assert count(params['backbone']) == 42_623_936
  assert count(params['head']) == head
  # The paper's rule: the first 3×3 and the unit, its bases counted.
  counted = count(params['head'], 'conv_in', 'ema_unit') + count(tree['bases'])
  assert counted / 1e6 == pytest.approx(added, abs=0.005)
  if channels == 512:
    assert count(params) / 1e6 == pytest.approx(53.8, abs=0.05)


@pytest.mark.parametrize(
  ('gradient', 'frozen'),
  [('cut', (('head', 'ema_unit', 'conv_in'),)), ('last', ())],
)
def test_frozen_params_are_exactly_those_without_gradient(
  gradient, frozen, variables
):
  model = segmenter.create_model(tiny(**{'head.gradient': gradient}), 5)
  assert model.frozen_params() == frozen

  @jax.jit
  @jax.grad
  def gradients(params):
    logits, _ = model.apply(
      {**variables, 'params': params},
      image(2, 33, 33),
      train=True,
      mutable=['batch_stats', 'bases'],
    )
    return (logits * image(2, 33, 33)[..., :1]).mean()

  leaves = traverse_util.flatten_dict(gradients(variables['params']))
  still = {path for path, leaf in leaves.items() if not np.any(leaf)}
  below = {path for path in leaves if any(path[: len(f)] == f for f in frozen)}
  assert still == below
  assert len(below) == (2 if frozen else 0)


def test_an_auxiliary_head_has_frozen_params_too():
  config = tiny()
  config.auxiliary_head.name = 'ema'
  config.auxiliary_head.weight = 0.4
  frozen = segmenter.create_model(config, 5).frozen_params()
  unit = 'ema_unit', 'conv_in'
  assert frozen == (('head', *unit), ('auxiliary_head', *unit))


def test_an_auxiliary_head_may_read_all_of_its_stages():
  config = tiny(**{'auxiliary_head.weight': 0.4, 'auxiliary_head.name': 'uper'})
  config.auxiliary_head.update(channels=8, dropout_rate=0.0)
  model = segmenter.create_model(config, 5)
  x = jnp.zeros((1, 65, 65, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), x)

  def outputs(variables):
    apply = functools.partial(model.apply, train=True, mutable=True)
    return apply(variables, x)[1]['outputs']

  (output,) = jax.eval_shape(outputs, variables)['auxiliary']
  assert output['logits'].shape == (1, 17, 17, 5)


def test_normalize_takes_bytes():
  rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), np.uint8)
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  got = segmenter.normalize(jnp.asarray(rgb))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, (rgb / 255 - mean) / std, atol=1e-5)
  padding = segmenter.normalize(jnp.uint8([124, 116, 104]))
  assert np.abs(padding).max() < 0.02


@pytest.mark.parametrize('align_corners', [True, False])
def test_logits_are_the_low_resolution_ones_upsampled(align_corners, variables):
  model = segmenter.create_model(tiny(align_corners=align_corners), 5)

  @jax.jit
  def both(x):
    low = model.apply(variables, x, method='low_resolution')
    return low, model.apply(variables, x)

  low, got = both(image(1, 33, 46))
  assert low.shape == (1, 5, 6, 5)
  expected = resize_bilinear(low, (33, 46), align_corners=align_corners)
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_bfloat16_gives_float32_logits_close_to_float32(variables):
  def logits(dtype):
    model = segmenter.create_model(tiny(dtype=dtype), 5)
    return jax.jit(model.apply)(variables, image(2, 33, 46))

  full, half = logits('float32'), logits('bfloat16')
  assert half.dtype == jnp.float32
  assert half.shape == (2, 33, 46, 5)
  assert np.abs(half - full).max() < 0.05 * np.abs(full).max()
  assert np.any(half != full)


def test_bfloat16_keeps_every_variable_float32():
  tree = abstract(dtype='bfloat16', **{'backbone.stage_sizes': (1, 1, 1, 1)})
  tree.pop('intermediates', None)
  assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype('f4')}


def test_flax_convolutions_give_the_same(variables, monkeypatch):
  """Logits, their gradients, statistics and bases, of a training pass."""
  ours = []

  def noted(*args, **kwargs):
    ours.append(args)
    return conv2d.conv2d(*args, **kwargs)

  monkeypatch.setattr(layers, 'conv2d', noted)

  def training_pass(way):
    config = tiny(convolution=way, dtype='float64')
    model = segmenter.create_model(config, 5)
    params, rest = variables['params'], dict(variables)
    del rest['params']

    def product(params):
      logits, state = model.apply(
        {'params': params, **rest}, x, train=True, mutable=[*rest]
      )
      return (logits * cotangent).sum(), (logits, state)

    return jax.jit(jax.grad(product, has_aux=True))(params)

  with jax.enable_x64(True):
    variables = jax.tree.map(np.float64, variables)
    x, cotangent = normal(2, 65, 57, 3), normal(2, 65, 57, 5, seed=1)
    fast, count = training_pass('fast'), len(ours)
    plain = training_pass('flax')
  assert count == 24
  assert len(ours) == count  # not a single one more
  for got, expected in zip(*map(jax.tree.leaves, (plain, fast)), strict=True):
    assert got.dtype == np.float64
    np.testing.assert_allclose(
      got, expected, rtol=0, atol=1e-10 * np.abs(expected).max()
    )


def test_flax_convolutions_agree_in_float32(variables):
  x = image(2, 65, 57)
  fast, plain = (
    jax.jit(segmenter.create_model(tiny(convolution=way), 5).apply)(
      variables, x
    )
    for way in segmenter.CONVOLUTIONS
  )
  assert relative_error(fast, plain) < 1e-5


@pytest.mark.parametrize('train', [False, True])
def test_flax_convolutions_have_forward_mode(train, variables):
  """A product with a tangent, against reverse mode's."""
  with jax.enable_x64(True):
    config = tiny(
      convolution='flax', dtype='float64', **{'head.gradient': 'full'}
    )
    model = segmenter.create_model(config, 5)
    params, rest = jax.tree.map(np.float64, dict(variables)), {}
    rest = {k: params.pop(k) for k in list(params) if k != 'params'}
    params = params['params']
    x, cotangent = normal(2, 33, 33, 3), normal(2, 33, 33, 5, seed=1)
    rng = np.random.default_rng(2)
    tangent = jax.tree.map(lambda p: rng.normal(size=p.shape), params)

    def logits(params):
      found, _ = model.apply(
        {'params': params, **rest}, x, train=train, mutable=[*rest]
      )
      return found

    @jax.jit
    def both(params, tangent):
      _, forward = jax.jvp(logits, (params,), (tangent,))
      _, vjp = jax.vjp(logits, params)
      (gradient,) = vjp(jnp.asarray(cotangent))
      return (forward * cotangent).sum(), gradient

    forward, gradient = both(params, tangent)
    products = jax.tree.map(lambda a, b: np.sum(a * b), gradient, tangent)
    reverse = sum(jax.tree.leaves(products))
  np.testing.assert_allclose(forward, reverse, rtol=1e-9)


@pytest.mark.parametrize('part', ['kernel', 'scale'])
def test_the_fast_network_names_the_switch_for_forward_mode(part, variables):
  """Where JAX would name only a custom_vjp function: jitted before."""
  model = segmenter.create_model(tiny(), 5)
  params = variables['params']
  rest = {k: v for k, v in variables.items() if k != 'params'}
  x = normal(2, 33, 33, 3)

  @jax.jit
  def logits(params):
    return model.apply(
      {'params': params, **rest}, x, train=True, mutable=[*rest]
    )

  tangent = jax.tree.map_with_path(
    lambda path, p: jnp.full_like(p, path[-1].key == part), params
  )
  with pytest.raises(TypeError, match=r"model\.convolution='flax'"):
    jax.jvp(logits, (params,), (tangent,))
