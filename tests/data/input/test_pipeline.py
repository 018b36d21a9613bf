"""Order, sharding and augmentation."""

import hashlib
import time

import cv2
import numpy as np
import pytest

from emanet_jax.data.input import pipeline, transforms
from emanet_jax.errors import UserError
from tests.data.batches import assert_same, take, train


def test_batches_have_the_promised_types(shapes):
  batch = next(train(shapes))
  assert batch['image'].shape == (8, 65, 65, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['label'].shape == (8, 65, 65)
  assert batch['label'].dtype == np.uint8


def test_same_seed_same_batches_whatever_the_threads(shapes):
  one = take(train(shapes, num_threads=1, prefetch=1), 5)
  assert_same(one, take(train(shapes, num_threads=4, prefetch=8), 5))
  other = next(train(shapes, seed=1))
  assert not np.array_equal(one[0]['image'], other['image'])


def test_every_example_once_an_epoch_in_a_new_order(tiny):
  # Batches of 5 from 3 images: repeated before batching, none dropped.
  batches = take(train(tiny, batch_size=5), 60)
  order = np.concatenate([b['label'][:, 4, 4] for b in batches])
  epochs = order.reshape(-1, 3)
  assert (np.sort(epochs, axis=1) == [0, 1, 2]).all()
  assert len({tuple(epoch) for epoch in epochs}) == 6


def test_an_example_is_augmented_anew_each_epoch(tiny):
  batches = take(train(tiny, batch_size=3), 8)
  crops = {
    batch['image'][i].tobytes()
    for batch in batches
    for i in range(3)
    if batch['label'][i, 4, 4] == 0
  }
  assert len(crops) == 8


@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_the_global_batch(shapes, count):
  whole = take(train(shapes), 3)
  parts = [take(train(shapes, index=i, count=count), 3) for i in range(count)]
  for step in range(3):
    for key in ('image', 'label'):
      merged = np.stack([p[step][key] for p in parts], axis=1)
      merged = merged.reshape(whole[step][key].shape)
      np.testing.assert_array_equal(merged, whole[step][key])


def test_order_and_draws_are_as_ever(shapes):
  # Labels, since the last digit of a photo is up to the machine.
  label = next(train(shapes, seed=3))['label']
  digest = hashlib.sha256(label.tobytes()).hexdigest()
  assert digest[:16] == 'f8d389d24bdec05b'


@pytest.mark.parametrize(
  'key', ['rotation', 'brightness', 'contrast', 'saturation', 'hue', 'blur']
)
def test_an_augmentation_changes_pictures_but_not_what_is_cut(shapes, key):
  plain, changed = next(train(shapes)), next(train(shapes, **{key: 0.5}))
  differ = (plain['image'] != changed['image']).mean()
  assert differ > 0.1
  labels = (plain['label'] != changed['label']).mean()
  # Turned by half a degree, a label changes along its borders.
  assert 0 < labels < 0.05 if key == 'rotation' else labels == 0
  again = next(train(shapes, num_threads=1, **{key: 0.5}))
  assert_same([changed], [again])


@pytest.mark.parametrize(
  ('key', 'value', 'limits'),
  [
    ('rotation', -1.0, '180'),
    ('rotation', 181.0, '180'),
    ('brightness', -0.1, 'inf'),
    ('contrast', float('nan'), 'inf'),
    ('saturation', -1.0, 'inf'),
    ('hue', 0.51, '0.5'),
    ('blur', 1.1, '1'),
  ],
)
def test_impossible_augmentations_are_refused(shapes, key, value, limits):
  place = key if key == 'rotation' else f'augmentations.color.{key}'
  message = rf'data.{place} is {value}; it must be 0 \(off\) to {limits}\.'
  with pytest.raises(UserError, match=message):
    train(shapes, **{key: value})


def test_opencv_starts_no_threads_beside_the_readers(shapes):
  cv2.setNumThreads(2)
  next(train(shapes))
  assert cv2.getNumThreads() == 1


def test_batches_are_no_views_of_one_another(tiny):
  batches = take(train(tiny, batch_size=3, prefetch=4), 6)
  before = [batch['image'].copy() for batch in batches]
  for batch in batches[::2]:
    batch['image'][:] = 0
  for batch, image in zip(batches[1::2], before[1::2], strict=True):
    np.testing.assert_array_equal(batch['image'], image)


def test_prefetch_is_bounded(shapes):
  dataset, config = shapes
  reads = []
  source = dataset.source('train')

  class Counting:
    def __len__(self):
      return len(source)

    def __getitem__(self, index):
      reads.append(index)
      return source[index]

  class Watched(pipeline.Dataset):
    def source(self, split):
      return Counting()

  watched = Watched(dataset.spec, dataset.directory, dataset.counts)
  iterator = train((watched, config), batch_size=4, num_threads=2, prefetch=3)
  take(iterator, 2)
  time.sleep(0.5)
  # Two taken and three ahead.
  assert len(reads) <= 5 * 4
  iterator.close()


@pytest.mark.parametrize('count', [1, 3])
def test_evaluation_sees_every_example_once_in_order(shapes, count):
  dataset, _ = shapes
  parts = [
    [
      e['id']
      for e in pipeline.evaluation_examples(
        dataset, 'val', range(i, dataset.num_examples('val'), count)
      )
    ]
    for i in range(count)
  ]
  expected = [f'val_{i:04d}' for i in range(96)]
  assert parts == [expected[i::count] for i in range(count)]


def test_evaluation_takes_any_order_and_knows_the_sizes(shapes):
  dataset, _ = shapes
  order = [5, 2, 90, 2]
  examples = list(pipeline.evaluation_examples(dataset, 'val', order))
  assert [e['id'] for e in examples] == [f'val_{i:04d}' for i in order]
  sizes = pipeline.image_sizes(dataset, 'val', order)
  assert sizes == [e['label'].shape for e in examples]
  everything = list(pipeline.evaluation_examples(dataset, 'val'))
  assert [e['id'] for e in everything] == [f'val_{i:04d}' for i in range(96)]


def test_evaluation_gives_the_images_as_stored(shapes):
  dataset, _ = shapes
  examples = take(pipeline.evaluation_examples(dataset, 'val'), 3)
  for got, record in zip(examples, dataset.source('val'), strict=False):
    want = transforms.decode(record)
    assert got['id'] == want['id']
    np.testing.assert_array_equal(got['image'], want['image'])
    np.testing.assert_array_equal(got['label'], want['label'])
    assert got['label'].dtype == np.uint8


def test_more_processes_than_examples(tiny):
  dataset, _ = tiny
  counts = [
    len(list(pipeline.evaluation_examples(dataset, 'val', range(i, 2, 4))))
    for i in range(4)
  ]
  assert counts == [1, 1, 0, 0]
