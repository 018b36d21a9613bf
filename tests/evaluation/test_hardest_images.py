"""Best and worst images are those that sorting all of them gives."""

import math

import numpy as np
import pytest

from emanet_jax.evaluation.hardest_images import HardestImages, image_scores


def confusions(count, seed=0):
  """Random matrices of few different scores, so that many are equal."""
  rng = np.random.default_rng(seed)
  few = rng.integers(0, 9, (5, 3, 3)) * (rng.random((5, 3, 3)) < 0.6)
  few[0] = 0  # No labelled pixel.
  return few[rng.integers(0, len(few), count)]


@pytest.mark.parametrize('kept', [0, 1, 4, 50])
@pytest.mark.parametrize('seed', range(5))
def test_equals_sorting_all(kept, seed):
  fed = confusions(40, seed)
  extremes = HardestImages(kept)
  for index, confusion in enumerate(fed):
    extremes.add(confusion, lambda index=index: {'id': index})
  scores = [image_scores(confusion) for confusion in fed]
  scored = [i for i in range(40) if not math.isnan(scores[i]['miou'])]
  assert 0 < len(scored) < 40  # Some are passed over.
  # Sorting is stable: equal images stay in their order.
  best = sorted(scored, key=lambda i: -scores[i]['miou'])[:kept]
  worst = sorted(scored, key=lambda i: scores[i]['miou'])[:kept]
  assert extremes.best == [{'id': i, **scores[i]} for i in best]
  assert extremes.worst == [{'id': i, **scores[i]} for i in worst]


def test_pictures_are_made_once_and_only_when_kept():
  made = []

  def add(name, right):
    confusion = np.array([[right, 10 - right], [0, 10]])
    extremes.add(confusion, lambda: made.append(name) or {'id': name})

  extremes = HardestImages(1)
  add('first', 5)  # Both best and worst.
  add('equal', 5)
  add('better', 8)
  add('between', 6)
  add('worse', 2)
  assert made == ['first', 'better', 'worse']
  assert [p['id'] for p in extremes.best] == ['better']
  assert [p['id'] for p in extremes.worst] == ['worse']


def test_image_scores_are_over_the_classes_in_the_image():
  confusion = np.zeros((4, 4), np.int64)
  confusion[0, 0], confusion[1, 1], confusion[1, 2] = 6, 3, 1
  scores = image_scores(confusion)
  assert scores == {
    'miou': pytest.approx((6 / 6 + 3 / 4 + 0) / 3),
    'accuracy': pytest.approx(9 / 10),
  }
  empty = image_scores(np.zeros((4, 4), np.int64))
  assert all(math.isnan(value) for value in empty.values())
