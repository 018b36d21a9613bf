"""What a pixel attends to, in networks of heads without bases."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from emanet_jax.errors import UserError
from emanet_jax.inference.views import look
from emanet_jax.models.outputs import ATTENTION
from emanet_jax.models.segmenter import MEAN, STD
from emanet_jax.prediction import attention_maps, attention_pages, predict
from emanet_jax.prediction.attention_maps import Attention
from tests import tiny
from tests.models.heads.attention import products
from tests.pictures import panels, read

NAME = 'attention to rows and columns'


def network(name):
  config = tiny.tiny_config()
  config.model.head.name = name
  if 'inner_channels' in config.model.head:
    config.model.head.inner_channels = 4
  (model,) = predict._models_by_stage(config.model, 7)
  return config, model, tiny.random_variables(model)


@pytest.fixture(scope='module')
def cc():
  config, model, variables = network('cc')
  query = variables['params']['head']['block']['query']
  query |= {k: 0.003 * v for k, v in query.items()}  # or softmaxes are 0 and 1
  return config, model, variables


def test_predict_draws_the_row_of_all_positions(cc, tmp_path, monkeypatch):
  config, model, variables = cc
  image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
  mean, std = np.float32(MEAN) * 255, np.float32(STD) * 255
  above = [(0, -(n - 1) % 8) for n in image.shape[:2]]
  padded = np.pad((image - mean) / std, (*above, (0, 0)))[None]
  apply = functools.partial(model.apply, mutable=[ATTENTION])
  _, sown = jax.jit(apply)(variables, padded)
  w = products(sown)[NAME].reshape(5, 8, 5, 8)

  tiny.save_step(config, variables, tmp_path / 'run', 1)
  Image.fromarray(image).save(tmp_path / 'a.png')
  config.predict.input = str(tmp_path / 'a.png')
  config.predict.attention, config.predict.pixel = True, (20, 49)
  drawn, draw = [], attention_pages.receiving_page

  def spy(path, attention, *more):
    drawn.append(attention)
    draw(path, attention, *more)

  monkeypatch.setattr(attention_pages, 'receiving_page', spy)
  predict.predict(config, str(tmp_path / 'run'))
  folder = tmp_path / 'run' / 'predict' / 'attention' / 'a'
  assert [p.name for p in folder.iterdir()] == ['pixel_20_49.png']
  page = read(folder / 'pixel_20_49.png')
  assert page.shape[1] == pytest.approx(200 * (0.3 + 2 * 1.9 + 0.06), abs=3)
  (seen,) = drawn
  assert seen.at((20, 49)) == (2, 6)
  assert seen.stages.shape == (0, 5, 8, 0)
  ((name, got),) = seen.maps.items()
  assert name == NAME
  np.testing.assert_allclose(got, w[2, 6], rtol=1e-3, atol=1e-5)
  assert np.abs(got - w[2, 5]).max() > 1e-2


def test_looks_of_evaluation_have_no_attention(cc):
  _, model, variables = cc
  image, size = np.zeros((1, 33, 33, 3), np.uint8), np.array([[33, 33]])
  shapes = jax.eval_shape(
    functools.partial(look, model), variables, image, size
  )
  assert shapes.sown == {}


def test_a_place_goes_through_all_factors_of_all_applications():
  rng = np.random.default_rng(0)
  first, last = (
    [rng.random((1, 6, k), np.float32), rng.random((1, k, 6), np.float32)]
    for k in (2, 3)
  )
  got = attention_maps._map_of(np.array([1, 2]), (first, last), (2, 3))
  expected = (last[0] @ last[1] @ first[0] @ first[1])[0, 5]
  np.testing.assert_allclose(got, expected.reshape(2, 3), rtol=1e-5)


def test_what_a_network_does_not_have_is_refused(cc):
  _, model, variables = cc
  with pytest.raises(
    UserError, match=r'what a pixel attends to; say which, as'
  ):
    attention_maps.create_attend([model], variables)
  with pytest.raises(UserError, match=r'predict\.bases: .* no bases; .* .ema.'):
    attention_maps._check([], {NAME: None}, (1,), (3, 4))
  _, model, variables = network('fcn')
  with pytest.raises(UserError) as e:
    attention_maps.create_attend([model], variables, (), (3, 4))
  message = str(e.value)
  assert 'no attention between positions' in message
  assert 'a2, ann, cc, da, dnl, ema, gc, nonlocal, ocr, psa, or' in message
  assert '\n' not in message


def test_the_page_of_what_a_pixel_attends_to(tmp_path):
  left, right = np.zeros((2, 5, 9), np.float32)
  left[:, :4], right[:, 5:] = 0.05, 0.1
  maps = {'to the left': left, 'to the right': right}
  blue = np.full((33, 65, 3), (0, 0, 255), np.uint8)
  seen = Attention(blue, np.empty((0, 5, 9, 0)), 8, 1.0, maps)
  pages = attention_pages.create_pages((), (16, 8), has_bases=False)
  (name,) = pages
  assert name == 'pixel_16_8'
  pages[name](tmp_path / 'a.png', seen, 'a $photo_')
  marked, *heats = panels(read(tmp_path / 'a.png'), seen.image, 3)
  assert np.abs(marked[16, 8] - (0, 0, 255)).max() > 100
  assert np.abs(marked[16, 40:-2] - (0, 0, 255)).max() <= 2
  for heat, bright, dark in zip(heats, (8, 56), (56, 8), strict=True):
    assert heat[10, bright].sum() > 2 * heat[10, dark].sum()
