"""Photos share few shapes and full batches."""

import numpy as np

from emanet_jax.prediction import segment


def test_shapes_are_few_and_large_enough():
  rng = np.random.default_rng(0)
  sizes = [tuple(s) for s in rng.integers(200, 700, (300, 2)).tolist()]
  shapes = segment.shared_shapes(sizes)
  for (height, width), shape in zip(sizes, shapes, strict=True):
    assert height <= shape[0]
    assert width <= shape[1]
    assert shape[0] % 64 == shape[1] % 64 == 1
  assert len(set(shapes)) < 12
  padded = sum(h * w for h, w in shapes) / sum(h * w for h, w in sizes)
  assert padded < 2
  assert segment.shared_shapes([(375, 500), (500, 375)]) == [
    (385, 513),
    (513, 385),
  ]
  assert segment.shared_shapes([]) == []


def test_batches_hold_every_photo_once_and_bound_memory():
  groups = {(65, 65): list('abcdefghij'), (4097, 3073): list('uvw')}
  batches = list(segment._batches(groups, 4, 1))
  assert [b[1] for b in batches] == [4, 4, 4, 1, 1, 1]
  assert ''.join(''.join(b[2]) for b in batches) == 'abcdefghijuvw'
  assert [b[1] for b in segment._batches(groups, 4, 8)] == [8, 8, 8]
