"""Pictures: their colours at known pixels and their rows."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from emanet_jax.visualization import overlays
from tests.pictures import read, where

PALETTE = np.array([[10, 200, 30], [250, 120, 0], [0, 60, 240]], np.uint8)
NAMES = ['grass', 'brick', 'sea']
RED, GREY = (226, 38, 38), (190, 190, 190)


def blocks(mask):
  """Counts runs of rows that hold a set pixel."""
  rows = np.pad(mask.any(axis=1).astype(int), 1)
  return int((np.diff(rows) == 1).sum())


def example(name='a', height=40, width=60):
  """Left half class 0, right half 1; its lower right quarter seen as 2."""
  image = np.zeros((height, width, 3), np.uint8)
  label = np.zeros((height, width), np.uint8)
  label[:, width // 2 :] = 1
  prediction = label.copy()
  prediction[height // 2 :, width // 2 :] = 2
  label[: height // 2, : width // 2] = 255
  return {
    'id': name,
    'image': image,
    'label': label,
    'prediction': prediction,
  }


def test_colorize():
  label = np.array([[0, 1], [2, 255]], np.uint8)
  colored = overlays.colorize(label, PALETTE)
  expected = [*PALETTE.tolist(), list(overlays.VOID_COLOR)]
  assert colored.reshape(-1, 3).tolist() == expected
  outside = overlays.colorize(np.array([[-1, 3]]), PALETTE)
  assert outside.tolist() == [[list(overlays.VOID_COLOR)] * 2]


def test_overlay():
  image = np.full((1, 2, 3), 100, np.uint8)
  label = np.array([[1, 255]], np.uint8)
  mixed = overlays.overlay(image, label, PALETTE, alpha=0.5)
  assert mixed.tolist() == [[[175, 110, 50], [100, 100, 100]]]
  opaque = overlays.overlay(image, label, PALETTE, alpha=1.0)
  assert opaque[0, 0].tolist() == PALETTE[1].tolist()
  assert (overlays.overlay(image, label, PALETTE, alpha=0.0) == image).all()


def test_overlay_page_shows_colors_and_errors(tmp_path):
  path = tmp_path / 'made' / 'page.png'
  overlays.overlay_page(path, [example()], NAMES, PALETTE, 'title')
  page = read(path)
  tinted = np.rint(0.55 * PALETTE).astype(np.uint8)  # Over a black photo.
  areas = [where(page, color).sum() for color in tinted]
  # Quarters of a panel: class 0 once in the label and twice in the prediction,
  # class 1 twice and once, class 2 once.
  assert areas[0] == pytest.approx(3 * areas[2], rel=0.03)
  assert areas[1] == pytest.approx(3 * areas[2], rel=0.03)
  panel = 4 * areas[2]
  assert panel == pytest.approx(480 * 320, rel=0.03)
  wrong = np.rint(0.85 * np.array(RED))
  assert where(page, wrong).sum() == pytest.approx(panel / 4, rel=0.03)
  assert where(page, GREY).sum() == pytest.approx(panel / 4, rel=0.03)
  # Errors stand in the last column, wrong ones to the right of ignored ones.
  assert np.nonzero(where(page, wrong))[1].min() > 0.85 * page.shape[1]
  for color in PALETTE:  # The legend's swatches are not tinted.
    assert where(page, color).sum() > 50


def test_overlay_page_has_a_row_an_example_in_its_own_shape(tmp_path):
  path = tmp_path / 'page.png'
  rows = [example('one'), example('$two_$', 60, 30), example('three', 20, 80)]
  overlays.overlay_page(path, rows, NAMES, PALETTE)
  sea = where(read(path), np.rint(0.55 * PALETTE[2]))
  assert blocks(sea) == 3
  heights = np.flatnonzero(np.diff(np.pad(sea.any(axis=1).astype(int), 1)))
  heights = np.diff(heights)[::2]
  expected = 240 * np.array([40 / 60, 60 / 30, 20 / 80])
  np.testing.assert_allclose(heights, expected, atol=4)


def test_legend_leaves_out_classes_that_do_not_occur(tmp_path):
  one = example()
  one['prediction'] = np.zeros_like(one['label'])
  path = tmp_path / 'page.png'
  overlays.overlay_page(path, [one], NAMES, PALETTE)
  page = read(path)
  assert where(page, PALETTE[1]).any()
  assert not where(page, PALETTE[2]).any()


def test_pixel_accuracy_leaves_out_ignored_pixels():
  one = example()
  accuracy = overlays._accuracy(one['label'], one['prediction'], 3)
  assert accuracy == '66.67 %'
  ignored = np.full_like(one['label'], 255)
  assert overlays._accuracy(ignored, one['prediction'], 3) == '-'


def test_pages_without_examples_are_refused(tmp_path):
  with pytest.raises(ValueError, match='at least one example'):
    overlays.overlay_page(tmp_path / 'a.png', [], NAMES, PALETTE)
  with pytest.raises(ValueError, match='at least one example'):
    overlays.attention_page(tmp_path / 'a.png', [])
  assert list(tmp_path.iterdir()) == []


def test_distinct_bases_skip_repetitions_and_flat_maps():
  rng = np.random.default_rng(0)
  strong, weak = rng.random((2, 9, 11))
  z = np.stack(
    [0.1 * weak, strong, 0.9 * strong + 3, np.full_like(weak, 7)], axis=-1
  ).astype(np.float32)
  assert overlays.distinct_bases(z, 2) == [1, 0]
  assert sorted(overlays.distinct_bases(z, 9)) == [0, 1, 2, 3]
  flat = np.ones((3, 3, 2), np.float32)
  assert overlays.distinct_bases(flat, 2) == [0, 1]


def test_upsampling_keeps_corners_and_ramps():
  ramp = np.add.outer(np.arange(3.0), 10 * np.arange(4.0))
  full = overlays.upsample(ramp, (17, 25))
  expected = np.add.outer(np.linspace(0, 2, 17), np.linspace(0, 30, 25))
  np.testing.assert_allclose(full, expected, atol=1e-12)
  lone = overlays.upsample(np.array([[4.0]]), (3, 2))
  np.testing.assert_array_equal(lone, np.full((3, 2), 4.0))


def test_strongest_equals_argmax_of_the_upsampled_maps():
  z = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
  full = [overlays.upsample(z[..., k], (33, 41)) for k in range(7)]
  strongest = overlays._strongest(z, (33, 41))
  np.testing.assert_array_equal(strongest, np.argmax(full, axis=0))


def test_attention_page_has_a_row_a_photo(tmp_path):
  blue = np.zeros((40, 60, 3), np.uint8)
  blue[...] = (0, 0, 255)
  z = np.random.default_rng(0).dirichlet(np.ones(3), (5, 8))
  row = {'image': blue, 'responsibilities': z.astype(np.float32)}
  path = tmp_path / 'attention.png'
  rows = [{'id': f'photo {i}', **row} for i in range(2)]
  overlays.attention_page(path, rows, num_bases=6)
  page = read(path)
  photos = where(page, (0, 0, 255))
  assert blocks(photos) == 2
  # Five columns (three bases are all there are), the photo in the first.
  assert np.nonzero(photos)[1].max() < 200 * (0.15 + 1.9)
  assert page.shape[1] == pytest.approx(200 * (5 * 1.9 + 0.54), abs=2)


def test_basis_colors_differ():
  colors = overlays.basis_colors(64)
  assert len(np.unique(colors, axis=0)) == 64


def test_pyplot_stays_out():
  # In a process of its own: other tests' libraries may well import it.
  script = """
    import sys
    from emanet_jax.visualization import overlays
    sys.exit('matplotlib.pyplot' in sys.modules)
  """
  command = [sys.executable, '-c', textwrap.dedent(script)]
  assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize('size', [(300, 1), (1, 300), (3000, 10), (20, 2000)])
def test_pages_of_tall_and_wide_photos_stay_small(size, tmp_path):
  rng = np.random.default_rng(0)
  example = {
    'id': 'a',
    'image': rng.integers(0, 256, (*size, 3), np.uint8),
    'label': np.zeros(size, np.uint8),
    'prediction': np.zeros(size, np.uint8),
    'responsibilities': rng.random((*[-(-n // 8) for n in size], 5)),
  }
  examples = [example, example]
  overlays.overlay_page(
    tmp_path / 'a.png', examples, ['x'], np.zeros((1, 3), np.uint8)
  )
  overlays.attention_page(tmp_path / 'b.png', examples)
  for name in ('a.png', 'b.png'):
    width, height = Image.open(tmp_path / name).size
    assert 1000 < width < 4000
    assert 100 < height < 3000
  # Not distorted: as long as the page bears it, in its own shape.
  drawn = np.asarray(Image.open(tmp_path / 'a.png').convert('RGB')).std(-1) > 9
  if size == (3000, 10):
    tall = drawn[300:900].any(0)
    assert 5 < np.flatnonzero(tall[:600]).size < 30
