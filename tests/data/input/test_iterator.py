"""Going on from a state, and only from one of the same batches."""

import json

import numpy as np
import pytest

from emanet_jax.errors import UserError
from tests.data.batches import assert_same, take, train


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
  'train_split': ('train', 'val'),
}
COLORS = {
  'brightness': (0.0, 0.1),
  'contrast': (0.0, 0.2),
  'saturation': (0.0, 0.3),
  'hue': (0.0, 0.4),
  'blur': (0.0, 0.5),
}


def test_a_state_made_otherwise_is_refused_with_every_difference(shapes):
  dataset, _ = shapes
  first = train(shapes)
  take(first, 2)
  state = json.loads(json.dumps(first.get_state()))
  changes = {k: new for k, (_, new) in {**CHANGES, **COLORS}.items()}
  other = train(shapes, seed=1, **changes)
  with pytest.raises(UserError, match='Set these values back') as caught:
    other.set_state(state)
  lines = str(caught.value).splitlines()[1:-1]
  expected = {'num_examples': (512, 96), 'seed': (0, 1), **CHANGES}
  expected['fingerprint'] = tuple(map(dataset.fingerprint, ('train', 'val')))
  colors = {k: COLORS[k][1] for k in sorted(COLORS)}
  expected['augmentations'] = {}, {'color': colors}
  assert lines == [
    f'  {key}: then {old!r}, now {new!r}'
    for key, (old, new) in sorted(expected.items())
  ]
  assert other.get_state()['position'] == 0
  # What was made before there were such states is refused as well.
  with pytest.raises(UserError, match=r"name: then '\(absent\)', now 'shapes'"):
    other.set_state({'position': 4})


@pytest.mark.parametrize('hue', [0.0, 0.4])
def test_a_state_of_before_augmentations_had_sections_is_read(shapes, hue):
  first = train(shapes, hue=hue)
  take(first, 2)
  state = json.loads(json.dumps(first.get_state()))
  del state['made_with']['augmentations']
  state['made_with'] |= {k: old for k, (old, _) in COLORS.items()}
  state['made_with']['hue'] = hue
  second = train(shapes, hue=hue)
  second.set_state(state)
  np.testing.assert_array_equal(next(first)['image'], next(second)['image'])
  state['made_with']['hue'] = 0.25
  with pytest.raises(UserError, match=r"augmentations: then .*'hue': 0.25"):
    second.set_state(state)


def test_another_set_of_the_same_size_is_refused(shapes, tiny):
  state = train(shapes).get_state()
  with pytest.raises(UserError, match="name: then 'shapes', now 'camvid'"):
    train(tiny).set_state(state)
