"""Images share few shapes and full batches, each once, within a budget."""

import jax
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.inference import batching
from emanet_jax.inference.batching import Batch, plan_batches


def random_sizes(count=300):
  rng = np.random.default_rng(0)
  return [tuple(s) for s in rng.integers(200, 700, (count, 2)).tolist()]


@pytest.mark.parametrize(('step', 'most'), [(0, 4), (64, 64), (8, 300)])
def test_every_image_is_once_in_a_shape_that_holds_it(step, most):
  sizes = random_sizes()
  batches = plan_batches(sizes, batch_size=8, stride=8, shape_step=step)
  members = [member for batch in batches for member in batch.members]
  assert sorted(members) == list(range(len(sizes)))
  for batch in batches:
    assert 1 <= len(batch.members) <= batch.places <= 8
    side = step or 8
    assert batch.shape[0] % side == batch.shape[1] % side == 1
    for member in batch.members:
      height, width = sizes[member]
      assert height <= batch.shape[0]
      assert width <= batch.shape[1]
  assert len({batch.shape for batch in batches}) <= most
  places = {}
  for batch in batches:  # one program a shape: a number of places of its own
    assert places.setdefault(batch.shape, batch.places) == batch.places


def padding(sizes, batches):
  """Pixels of the shapes over pixels of the images."""
  shapes = sum(b.shape[0] * b.shape[1] * len(b.members) for b in batches)
  return shapes / sum(height * width for height, width in sizes)


def test_four_shapes_need_little_padding():
  sizes = random_sizes()
  batches = plan_batches(sizes, batch_size=4, stride=8)
  one = max(h for h, _ in sizes) * max(w for _, w in sizes) * len(sizes)
  assert len({batch.shape for batch in batches}) == 4
  assert padding(sizes, batches) < 1.7
  assert one / sum(h * w for h, w in sizes) > 2.3


def test_sizes_like_those_of_voc_need_hardly_any_padding():
  sizes = [(375, 500), (333, 500), (500, 375), (500, 333), (366, 500)] * 400
  batches = plan_batches(sizes, batch_size=1, stride=8)
  assert len(batches) == len(sizes)
  assert len({batch.shape for batch in batches}) <= 4
  assert padding(sizes, batches) < 1.04


def test_thousands_of_sizes_share_four_shapes():
  rng = np.random.default_rng(1)
  sizes = [tuple(s) for s in rng.integers(50, 4000, (5000, 2)).tolist()]
  batches = plan_batches(sizes, batch_size=4, stride=8)
  assert len({batch.shape for batch in batches}) <= 4
  # Each in the smallest that holds it.
  shapes = {batch.shape for batch in batches}
  for batch in batches:
    for member in batch.members:
      height, width = sizes[member]
      holding = [h * w for h, w in shapes if h >= height and w >= width]
      assert batch.shape[0] * batch.shape[1] == min(holding)


@pytest.mark.parametrize(('images', 'shapes'), [(5, 1), (6, 2)])
def test_one_more_shape_spares_more_than_a_compilation(images, shapes):
  wide, tall = (201, 1001), (1001, 201)
  # In a square of 1001, each of the wide ones has 0.8 million more pixels.
  batches = plan_batches([tall, *[wide] * images], batch_size=8, stride=8)
  assert len({batch.shape for batch in batches}) == shapes


def test_portraits_and_landscapes_share_a_square():
  batches = plan_batches(
    [(375, 500), (500, 375), (97, 97)], batch_size=4, stride=8
  )
  assert batches == [Batch((505, 505), 3, (0, 1, 2))]
  assert plan_batches([], batch_size=4, stride=8) == []


def test_batches_have_as_few_empty_places_as_can_be():
  batches = plan_batches([(33, 33)] * 9, batch_size=8, stride=8)
  assert [(b.places, len(b.members)) for b in batches] == [(5, 5), (5, 4)]


def test_only_equal_shapes_are_shared_where_a_step_is_given():
  batches = plan_batches(
    [(30, 40), (33, 41), (41, 33)], batch_size=4, stride=8, shape_step=8
  )
  assert batches == [Batch((33, 41), 2, (0, 1)), Batch((41, 33), 1, (2,))]


def test_few_large_images_share_a_batch():
  sizes = [(65, 65)] * 10 + [(4097, 3073)] * 3
  small, large = (
    [b for b in plan_batches(sizes, batch_size=4, stride=8) if b.shape == s]
    for s in ((65, 65), (4097, 3073))
  )
  assert [(b.places, len(b.members)) for b in small] == [(4, 4), (4, 4), (4, 2)]
  assert [b.places for b in large] == [1, 1, 1]
  over_devices = plan_batches(sizes, batch_size=4, stride=8, devices=8)
  assert {b.places for b in over_devices} == {8}


def test_empty_places_hold_no_image_and_no_label():
  images = [np.full((2, 3, 3), 7, np.uint8), np.full((4, 1, 3), 9, np.uint8)]
  labels = [np.zeros((2, 3), np.uint8), np.ones((4, 1), np.uint8)]
  batch = batching.pad_images(images, (4, 5), 3)
  padded = batching.pad_labels(labels, (4, 5), 3)
  np.testing.assert_array_equal(batch['size'], [(2, 3), (4, 1), (0, 0)])
  for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    height, width = label.shape
    np.testing.assert_array_equal(batch['image'][i, :height, :width], image)
    assert batch['image'][i].sum() == image.sum()
    np.testing.assert_array_equal(padded[i, :height, :width], label)
    assert np.sum(padded[i] != 255) == label.size
  assert np.all(padded[2] == 255)


def test_lack_of_memory_tells_the_remedies():
  error = jax.errors.JaxRuntimeError
  with (
    pytest.raises(UserError, match=r'97×65.*--config.eval.window=769'),
    batching.explain_lack_of_memory((65, 97)),
  ):
    raise error('RESOURCE_EXHAUSTED: 9 bytes')
  with (
    pytest.raises(error, match='INTERNAL'),
    batching.explain_lack_of_memory((65, 97)),
  ):
    raise error('INTERNAL: other')
