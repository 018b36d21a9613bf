"""Order, sharding and resumption."""

import itertools
import json
import time

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from emanet_jax.data import pipeline, transforms


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
  assert batch['label'].dtype == np.int32


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


def test_state_goes_through_an_orbax_checkpoint(shapes, tmp_path):
  iterator = train(shapes)
  take(iterator, 3)
  with ocp.CheckpointManager(tmp_path / 'checkpoints') as manager:
    save = ocp.args.Composite(
      tree=ocp.args.StandardSave({'x': np.arange(3)}),
      data=grain.checkpoint.CheckpointSave(iterator),
    )
    manager.save(3, args=save)
    manager.wait_until_finished()
    expected = take(iterator, 3)
    fresh = train(shapes, num_threads=1)
    restore = grain.checkpoint.CheckpointRestore(fresh)
    manager.restore(3, args=ocp.args.Composite(data=restore))
  assert_same(take(fresh, 3), expected)


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
