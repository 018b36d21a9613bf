"""Rows of images on several devices: the same results, a part of the memory."""

import functools

import jax
import numpy as np
import pytest

from emanet_jax.inference import views
from emanet_jax.inference.predictor import Protocol, create_predictor
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding
from tests import tiny

CLASSES, SHAPE = 5, (65, 57)


@pytest.fixture(scope='module')
def network():
  with jax.enable_x64(True):
    config = tiny.tiny_config(model__dtype='float64').model
    model = create_model(config, CLASSES)
    return model, jax.tree.map(np.float64, tiny.random_variables(model))


def placed(tree, space):
  mesh = sharding.create_mesh(jax.devices()[: 2 * space], space=space)
  return mesh, jax.device_put(tree, sharding.batch_sharding(mesh))


@jax.enable_x64(True)
@pytest.mark.parametrize(
  'protocol',
  [
    Protocol(),
    Protocol((0.75, 1.0), flip=True),
    Protocol(window=33, stride=20),
  ],
  ids=str,
)
def test_probabilities_are_those_of_whole_images(network, protocol):
  model, variables = network
  rng = np.random.default_rng(0)
  images = {
    'image': rng.integers(0, 256, (2, *SHAPE, 3), np.uint8),
    'size': np.array([SHAPE, (50, 33)], np.int32),
  }
  found = []
  for space in (1, 2):
    mesh, batch = placed(images, space)
    predict = create_predictor(model, protocol)
    with jax.set_mesh(mesh):
      found.append(predict(variables, batch['image'], batch['size'])[0])
  assert found[0].dtype == np.float64
  np.testing.assert_allclose(*found, rtol=0, atol=1e-10)
  assert np.std(found[0]) > 0.01


@pytest.mark.parametrize(
  ('view', 'share'),
  [
    ({}, 0.6),
    ({'scale': 0.75, 'mirrored': True}, 0.7),
    ({'window': 129, 'stride': 99}, 0.85),  # their logits' sum is whole
  ],
)
def test_a_device_holds_a_part_of_the_features(view, share):
  """And asks its neighbours for rows, not for whole features."""
  wide = tiny.tiny_config(model__backbone__stem_widths=(32, 32, 64))
  model, side = create_model(wide.model, CLASSES), 257
  variables = tiny.random_variables(model)
  batch = {
    'image': np.zeros((2, side, side, 3), np.uint8),
    'size': np.full((2, 2), side, np.int32),
  }
  look, needed = functools.partial(views.look, model, **view), []
  for space in (1, 2):
    mesh, images = placed(batch, space)
    with jax.set_mesh(mesh):
      given = variables, images['image'], images['size']
      program = jax.jit(look).lower(*given).compile()
    needed.append(program.memory_analysis().temp_size_in_bytes)
  assert needed[1] < share * needed[0]
  assert 'collective-permute' in program.as_text()
