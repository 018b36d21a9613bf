"""The backbone `mit`: its size, padded batches, dropped paths, and errors.

Its numbers are held to mmsegmentation's in tests/models/heads/test_rivals.py.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.models import layers
from emanet_jax.models.backbones import mit
from emanet_jax.models.segmenter import create_model

TINY = {'widths': (2, 4, 10, 16), 'stage_sizes': (1, 2, 1, 1)}


@pytest.fixture(scope='module')
def variables(draw_variables):
  return draw_variables(mit.create(0.9, **TINY))


def test_parameter_count():
  """SegFormer-B0's 3,720,565 less the 401,173 of its head."""
  init = functools.partial(mit.create(0.9).init, train=False)
  tree = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 65, 65, 3)))
  leaves = jax.tree.leaves(tree['params'])
  assert sum(math.prod(leaf.shape) for leaf in leaves) == 3_319_392


@jax.enable_x64(True)  # two channels' norm makes much of rounding
def test_an_image_in_a_larger_batch_gets_what_it_gets_alone(variables):
  """Outside is noise, as nothing of it may matter."""
  check_images_alone(variables, (97, 75), [[97, 75], [65, 44]])


@jax.enable_x64(True)
def test_an_image_of_fewer_pixels_than_a_key_gets_what_it_gets_alone(variables):
  """The first stage has a key for 32 pixels each way: here there is none."""
  check_images_alone(variables, (65, 65), [[20, 20]])


def check_images_alone(variables, shape, extent):
  model = mit.create(0.9, **TINY)
  variables = jax.tree.map(np.float64, variables)

  @jax.jit
  def apply(x, extent=None):
    with nn.intercept_methods(layers.like_flax):
      return model.apply(variables, x, train=False, extent=extent)

  x = jax.random.normal(jax.random.key(0), (len(extent), *shape, 3))
  together = apply(x, jnp.array(extent))
  extents = model.out_extents(jnp.array(extent))
  for i, (rows, cols) in enumerate(extent):
    alone = apply(x[i : i + 1, :rows, :cols])
    for got, expected, own in zip(together, alone, extents, strict=True):
      rows, cols = own[i].tolist()
      assert expected.shape[1:3] == (rows, cols)
      assert expected.dtype == jnp.float64
      np.testing.assert_allclose(
        got[i : i + 1, :rows, :cols], expected, rtol=0, atol=1e-10
      )


@jax.jit
def layer_once(x):
  """A layer's results, in training and in evaluation."""
  layer = mit.Layer(num_heads=1, reduction=1, drop_rate=0.5)
  with nn.intercept_methods(layers.like_flax):
    whole, params = layer.init_with_output(jax.random.key(1), x, False)
    rngs = {'dropout': jax.random.key(2)}
    return layer.apply(params, x, True, rngs=rngs), whole


def test_paths_are_dropped_image_by_image():
  x = jax.random.normal(jax.random.key(0), (256, 2, 2, 4))
  got, whole = layer_once(x)
  assert not np.any(np.all(whole == x, axis=(1, 2, 3)))
  # Both branches are dropped of a quarter of the images.
  unchanged = np.all(got == x, axis=(1, 2, 3))
  assert abs(unchanged.mean() - 0.25) < 0.1


def test_remat_takes_each_layer_by_itself(variables):
  x = jnp.zeros((1, 33, 33, 3))

  def names(remat):
    model = mit.create(0.9, **TINY, drop_path_rate=0.0, remat=remat)
    apply = functools.partial(model.apply, variables, train=True)
    return [e.primitive.name for e in jax.make_jaxpr(apply)(x).eqns]

  assert names(True).count('remat2') == sum(TINY['stage_sizes'])
  assert names(False).count('remat2') == 0


def test_features_keep_the_dtype_of_the_image(variables):
  model = mit.create(0.9, **TINY)
  apply = functools.partial(model.apply, train=False)
  x = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.bfloat16)
  features = jax.eval_shape(apply, variables, x)
  assert {feature.dtype for feature in features} == {jnp.dtype('bfloat16')}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('variant', 'channels', 'millions'),
  [
    ('b0', 256, 3.8),
    ('b1', 256, 13.7),
    ('b2', 768, 27.5),
    ('b3', 768, 47.3),
    ('b4', 768, 64.1),
    ('b5', 768, 84.7),
  ],
)
def test_parameters_are_as_many_as_the_papers(variant, channels, millions):
  """SegFormer's table 1; its own heads are wider from B2 on."""
  config = default_config().model
  config.backbone.name, config.head.name = 'mit', 'segformer'
  config.backbone.variant, config.head.channels = variant, channels
  model = create_model(config, 150).clone(convolution='flax')
  tree = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 33, 33, 3))
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(tree['params']))
  assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'variant': 'b6'}, r"variant is 'b6'; known are b0, b1"),
    ({'stage_sizes': (2, 2)}, r'stage_sizes is \(2, 2\)'),
    ({'widths': (32, 64, 128, 256)}, r'widths is .*multiples of \(1, 2, 5, 8'),
    ({'drop_path_rate': 1.0}, r'drop_path_rate is 1\.0'),
  ],
)
def test_impossible_networks_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    mit.create(0.9, **options)
