"""Attention pages: Z in its place, stage by stage, for any photo."""

import functools

import jax
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import MEAN, STD, create_model
from emanet_jax.prediction import attention_maps, attention_pages, predict
from emanet_jax.prediction.attention_maps import Attention
from emanet_jax.visualization.overlays import basis_colors, upsample
from tests import tiny
from tests.pictures import panels, read, where

BLUE = (0, 0, 255)


@pytest.fixture(scope='module')
def network():
  config = tiny.tiny_config().model
  return config, tiny.random_variables(create_model(config, 7))


@pytest.fixture(scope='module')
def attend(network):
  config, variables = network
  models = predict._models_by_stage(config, 7)
  assert [m.head.ema_unit.eval_stages for m in models] == [1, 2, 3]
  attend, has_bases = attention_maps.create_attend(models, variables, (0, 3))
  assert has_bases
  return attend


def z_alone(config, variables, image, stages):
  """Z of a photo padded by hand to 1 modulo the stride."""
  config = config.copy_and_resolve_references()
  config.head.num_stages = stages
  model = create_model(config, 7)
  mean, std = np.float32(MEAN) * 255, np.float32(STD) * 255
  above = [(0, -(n - 1) % 8) for n in image.shape[:2]]
  padded = np.pad((image - mean) / std, (*above, (0, 0)))[None]
  apply = functools.partial(model.apply, mutable=['intermediates'])
  _, sown = jax.jit(apply)(variables, padded)
  (z,) = sown['intermediates']['head']['ema_unit']['responsibilities']
  return np.asarray(z)[0]


def test_stages_are_those_of_the_network_with_so_many(network, attend):
  config, variables = network
  image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
  seen = attend(image)
  assert seen.stages.shape == (3, 5, 8, 4)
  assert (seen.stride, seen.scale) == (8, 1)
  np.testing.assert_array_equal(seen.image, image)
  for stages in (1, 3):
    expected = z_alone(config, variables, image, stages)
    np.testing.assert_allclose(seen.stages[stages - 1], expected, atol=1e-4)
  assert np.abs(seen.stages[0] - seen.stages[2]).max() > 1e-3


def test_a_large_photo_is_looked_at_shrunk(attend, monkeypatch):
  monkeypatch.setattr(attention_maps, 'LOOK', 60)
  seen = attend(np.zeros((200, 120, 3), np.uint8))
  assert seen.image.shape == (60, 36, 3)
  assert seen.scale == 0.3
  assert seen.stages.shape[1:3] == (9, 6)  # of 65×41
  assert seen.at((0, 0)) == (0, 0)
  assert seen.at((199, 119)) == (7, 4)  # pixel 59 and 35 of the shrunk one
  assert seen.at((100, 60)) == (4, 2)


def test_maps_are_drawn_where_they_are():
  rng = np.random.default_rng(0)
  image = np.zeros((30, 50, 3), np.uint8)
  z = rng.random((5, 8, 3)).astype(np.float32)
  drawn = Attention(image, z[None], 8, 1.0).drawn(z)
  assert drawn.shape == (3, 30, 50)
  for k in range(3):
    # Each feature stands at every eighth pixel, in whatever is cut off.
    np.testing.assert_allclose(drawn[k, ::8, ::8], z[:4, :7, k], atol=1e-6)
    full = upsample(z[..., k], (33, 57))[:30, :50]
    np.testing.assert_allclose(drawn[k], full, atol=1e-6)
  # Where features end before the photo, as without aligned corners.
  short = Attention(image, z[None, :4, :6], 8, 1.0).drawn(z[:4, :6])
  np.testing.assert_allclose(short[:, 29], short[:, 24], atol=1e-6)


@pytest.fixture
def seen():
  """A blue photo of which basis 0 owns the left, 1 the right, 2 nothing."""
  image = np.zeros((33, 65, 3), np.uint8)
  image[...] = BLUE
  z = np.zeros((2, 5, 9, 3), np.float32)
  z[0] = 1 / 3
  z[1, :, :5, 0] = z[1, :, 5:, 1] = 0.9
  z[1, ..., 2] = 0.1
  return Attention(image, z, 8, 1.0)


def test_the_page_of_bases(seen, tmp_path):
  path = tmp_path / 'a' / 'bases.png'
  attention_pages.bases_page(path, seen, (1, 0), 'title')
  page = read(path)
  photo, strongest, right, left = panels(page, seen.image, 4)
  assert where(photo, BLUE).mean() > 0.8
  colors = basis_colors(3)
  blended = np.rint(0.3 * np.array(BLUE) + 0.7 * colors)
  assert np.abs(strongest[16, 8] - blended[0]).max() <= 2
  assert np.abs(strongest[16, 56] - blended[1]).max() <= 2
  assert right[16, 56].sum() > 2 * right[16, 8].sum()
  assert left[16, 8].sum() > 2 * left[16, 56].sum()


def test_the_page_of_a_pixel(seen, tmp_path):
  path = tmp_path / 'pixel.png'
  attention_pages.pixel_page(path, seen, (16, 48), 'title', num_bases=2)
  marked, related, owner, second = panels(read(path), seen.image, 4)
  assert not where(marked, BLUE)[16, 48]
  assert where(marked, BLUE)[16, :40].mean() > 0.9
  assert related[16, 60].sum() > 2 * related[16, 8].sum()
  assert owner[16, 60].sum() > 2 * owner[16, 8].sum()
  # The weaker owner is responsible for every pixel alike.
  assert np.abs(second[5:12, 8] - 1.0 * second[5:12, 60]).max() <= 2


def test_pages_are_named_after_what_they_show(seen, tmp_path):
  named = attention_pages.create_pages((2, 0), (3, 4))
  assert [*named] == ['all_bases', 'bases_2_0', 'stages_2_0', 'pixel_3_4']
  pages = attention_pages.create_pages((), ())
  assert [*pages] == ['all_bases', 'bases', 'stages']
  sizes = {}
  for name, draw in {**named, **pages}.items():
    draw(tmp_path / f'{name}.png', seen, 'a $photo_')
    sizes[name] = read(tmp_path / f'{name}.png').shape
  assert sizes['stages'][0] > 1.5 * sizes['bases'][0]  # two rows
  assert sizes['bases'][1] > sizes['bases_2_0'][1]  # three bases, not two


def test_a_contact_sheet_has_rows(seen, tmp_path):
  z = np.random.default_rng(0).dirichlet(np.ones(20), (1, 5, 9))
  many = Attention(seen.image, z.astype(np.float32), 8, 1.0)
  attention_pages.bases_page(tmp_path / 'a.png', many, range(20), '')
  page = read(tmp_path / 'a.png')
  # 22 pictures in rows of eight.
  rows = 3 * (1.9 * 33 / 65 + 0.27)
  expected = (200 * (0.3 + 0.2 + rows), 200 * (0.3 + 8 * 1.9 + 7 * 0.06))
  np.testing.assert_allclose(page.shape[:2], expected, atol=3)


def test_networks_without_such_bases_are_refused(network):
  config, variables = network
  models = predict._models_by_stage(config, 7)
  with pytest.raises(UserError, match=r'bases is \(1, 4\); .* 0 to 3'):
    attention_maps.create_attend(models, variables, (1, 4))
  with pytest.raises(UserError, match='no attention between positions'):
    attention_maps.create_attend([], variables)
