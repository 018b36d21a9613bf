"""Order, sharding and resumption."""

import hashlib
import itertools
import json
import time

import numpy as np
import pytest

from emanet_jax.data import pipeline, transforms
from emanet_jax.errors import UserError


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same(left, right):
  for a, b in zip(left, right, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
    np.testing.assert_array_equal(a['label'], b['label'])


def train(shapes, *, batch_size=8, seed=0, index=0, count=1, **changes):
  dataset, config = shapes
  config = config.copy_and_resolve_references()
  config.update(changes)
  return pipeline.train_iterator(
    dataset,
    config,
    batch_size=batch_size,
    seed=seed,
    process_index=index,
    process_count=count,
  )


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


@pytest.mark.parametrize('threads', [1, 3])
def test_resumes_in_the_middle_of_an_epoch(tiny, threads):
  iterator = train(tiny, batch_size=2)
  take(iterator, 4)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = take(iterator, 7)
  fresh = train(tiny, batch_size=2, num_threads=threads)
  next(fresh)  # A used iterator is rewound as well.
  fresh.set_state(state)
  assert_same(take(fresh, 7), expected)


def test_resumes_with_another_number_of_processes(shapes):
  first = train(shapes, index=1, count=2)
  take(first, 3)
  state = first.get_state()
  expected = take(train(shapes), 5)[3:]
  parts = []
  for i in range(4):
    part = train(shapes, index=i, count=4)
    part.set_state(state)
    parts.append(take(part, 2))
  for step in range(2):
    merged = np.stack([p[step]['image'] for p in parts], axis=1)
    np.testing.assert_array_equal(
      merged.reshape(expected[step]['image'].shape), expected[step]['image']
    )


def test_resumes_with_another_batch_size(shapes):
  first = train(shapes, batch_size=8)
  take(first, 3)
  assert first.get_state()['position'] == 24
  second = train(shapes, batch_size=4)
  second.set_state(first.get_state())
  expected = np.concatenate([b['image'] for b in take(first, 2)])
  got = np.concatenate([b['image'] for b in take(second, 4)])
  np.testing.assert_array_equal(got, expected)
  assert first.get_state() == second.get_state()


CHANGES = {
  'crop_size': (65, 49),
  'scales': ([0.5, 1.0, 1.5], [0.5, 1.0]),
  'flip': (True, False),
  'rotation': (0.0, 5.0),
  'brightness': (0.0, 0.1),
  'contrast': (0.0, 0.2),
  'saturation': (0.0, 0.3),
  'hue': (0.0, 0.4),
  'blur': (0.0, 0.5),
  'train_split': ('train', 'val'),
}


def test_a_state_made_otherwise_is_refused_with_every_difference(shapes):
  first = train(shapes)
  take(first, 2)
  state = json.loads(json.dumps(first.get_state()))
  other = train(shapes, seed=1, **{k: new for k, (_, new) in CHANGES.items()})
  with pytest.raises(UserError, match='Set these values back') as caught:
    other.set_state(state)
  lines = str(caught.value).splitlines()[1:-1]
  expected = {'num_examples': (512, 96), 'seed': (0, 1), **CHANGES}
  assert lines == [
    f'  {key}: then {old!r}, now {new!r}'
    for key, (old, new) in sorted(expected.items())
  ]
  assert other.get_state()['position'] == 0
  # What was made before there were such states is refused as well.
  with pytest.raises(UserError, match=r"name: then '\(absent\)', now 'shapes'"):
    other.set_state({'position': 4})


def test_another_set_of_the_same_size_is_refused(shapes, tiny):
  state = train(shapes).get_state()
  with pytest.raises(UserError, match="name: then 'shapes', now 'camvid'"):
    train(tiny).set_state(state)


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
  message = rf'config.data.{key} is {value}; it must be 0 \(off\) to {limits}\.'
  with pytest.raises(UserError, match=message):
    train(shapes, **{key: value})


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
        dataset, 'val', process_index=i, process_count=count
      )
    ]
    for i in range(count)
  ]
  expected = [f'val_{i:04d}' for i in range(96)]
  assert parts == [expected[i::count] for i in range(count)]


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
    len(
      list(
        pipeline.evaluation_examples(
          dataset, 'val', process_index=i, process_count=4
        )
      )
    )
    for i in range(4)
  ]
  assert counts == [1, 1, 0, 0]
