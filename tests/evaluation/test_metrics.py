"""Scores against the authors' figures, a NumPy twin and properties."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from emanet_jax.evaluation import metrics

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'metrics.npz'


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


def counted(label, prediction, num_classes, ignore_label=255):
  """The slow twin: one pixel after another."""
  hist = np.zeros((num_classes, num_classes), np.int64)
  for t, p in zip(label.ravel().tolist(), prediction.ravel(), strict=True):
    if t != ignore_label and 0 <= t < num_classes and 0 <= p < num_classes:
      hist[t, p] += 1
  return hist


def random_pair(shape, low, high, dtype=np.int32, seed=0):
  rng = np.random.default_rng(seed)
  return tuple(rng.integers(low, high, shape).astype(dtype) for _ in range(2))


def test_matrix_equals_the_authors(golden):
  hist = metrics.confusion_matrix(golden['label'], golden['pred'], 21)
  np.testing.assert_array_equal(hist, golden['hist'])


def test_scores_equal_the_authors_to_the_last_bit(golden):
  scores = metrics.scores(golden['hist'])
  for name in ('mIoU', 'pAcc', 'mAcc', 'fIoU'):
    assert getattr(scores, name) == golden[name], name
  np.testing.assert_array_equal(scores.iou, golden['iou'])


@pytest.mark.parametrize(
  ('shape', 'low', 'high', 'dtype', 'ignore_label'),
  [
    ((2, 13, 17), -2, 9, np.int32, 255),  # outside 0…6 on both sides
    ((2, 13, 17), 0, 7, np.int32, 3),  # an ignored label that is a class
    ((3, 8, 5), 0, 256, np.uint8, 255),
    ((9, 11), 0, 7, np.uint8, 255),  # one image without a batch
  ],
)
def test_jitted_matrix_equals_counting(shape, low, high, dtype, ignore_label):
  label, prediction = random_pair(shape, low, high, dtype)
  jitted = jax.jit(metrics.confusion_matrix, static_argnums=(2, 3))
  hist = jitted(label, prediction, 7, ignore_label)
  assert hist.dtype == np.int32
  np.testing.assert_array_equal(
    hist, counted(label, prediction, 7, ignore_label)
  )


def test_uint8_labels_do_not_overflow():
  label = np.full((1, 4, 4), 170, np.uint8)
  hist = np.array(metrics.confusion_matrix(label, label, 171))
  assert hist[170, 170] == 16
  assert hist.sum() == 16


def test_matrix_is_additive_over_batches():
  label, prediction = random_pair((4, 10, 12), 0, 5)
  count = functools.partial(metrics.confusion_matrix, num_classes=5)
  whole = count(label, prediction)
  halves = count(label[:1], prediction[:1]) + count(label[1:], prediction[1:])
  np.testing.assert_array_equal(whole, halves)


def test_matrix_of_a_large_batch_is_exact():
  # float32 would stop counting one by one at 2^24 in a single cell.
  shape = (65, 513, 513)
  label = np.zeros(shape, np.uint8)
  hist = metrics.confusion_matrix(label, label, 2)
  assert int(hist[0, 0]) == np.prod(shape) > 2**24


def test_sharded_batch_is_counted_where_it_lies():
  devices = jax.devices()
  if len(devices) < 2:
    pytest.skip('one device: XLA_FLAGS can split a CPU into several')
  mesh = jax.sharding.Mesh(np.array(devices), ('data',))
  shard = NamedSharding(mesh, PartitionSpec('data'))
  label, prediction = random_pair((2 * len(devices), 9, 7), 0, 5)
  jitted = jax.jit(
    functools.partial(metrics.confusion_matrix, num_classes=5),
    out_shardings=NamedSharding(mesh, PartitionSpec()),
  )
  arguments = [jax.device_put(a, shard) for a in (label, prediction)]
  np.testing.assert_array_equal(
    jitted(*arguments), counted(label, prediction, 5)
  )
  compiled = jitted.lower(*arguments).compile().as_text()
  assert 'all-gather' not in compiled


def test_absent_classes():
  # 0 is right and wrong, 1 only labelled, 2 only predicted, 3 neither.
  hist = np.zeros((4, 4), np.int64)
  hist[0, 0], hist[0, 2], hist[1, 0] = 6, 2, 2
  scores = metrics.scores(hist)
  np.testing.assert_array_equal(scores.iou, [0.6, 0, 0, np.nan])
  np.testing.assert_array_equal(scores.accuracy, [0.75, 0, np.nan, np.nan])
  np.testing.assert_array_equal(scores.share, [0.8, 0.2, 0, 0])
  assert scores.mIoU == pytest.approx(0.6 / 3)
  assert scores.mAcc == pytest.approx(0.75 / 2)
  assert scores.pAcc == pytest.approx(0.6)
  assert scores.fIoU == pytest.approx(0.8 * 0.6)


@pytest.mark.filterwarnings('error')
def test_a_split_without_pixels_has_no_scores():
  scores = metrics.scores(np.zeros((3, 3), np.int64))
  assert np.isnan([scores.mIoU, scores.pAcc, scores.mAcc, scores.fIoU]).all()


def test_a_perfect_prediction_scores_one():
  scores = metrics.scores(np.diag([5, 1, 2**40]))
  assert scores.mIoU == scores.pAcc == scores.mAcc == scores.fIoU == 1


def test_int32_matrix_does_not_overflow():
  hist = np.full((2, 2), 2**30, np.int32)
  assert metrics.scores(hist).pAcc == 0.5


def test_table():
  scores = metrics.scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
  assert metrics.table(scores, ['sky', 'building', 'car']).splitlines() == [
    'class        IoU     acc  pixels',
    '--------------------------------',
    'sky        75.00   75.00   50.00',
    'building   80.00  100.00   50.00',
    'car            -       -    0.00',
    '--------------------------------',
    'mIoU       77.50',
    'pAcc       87.50',
    'mAcc       87.50',
    'fIoU       77.50',
  ]


def test_json_round_trip():
  scores = metrics.scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
  plain = metrics.to_json(scores, ['sky', 'building', 'car'])
  assert json.loads(json.dumps(plain, allow_nan=False)) == {
    'mIoU': pytest.approx(0.775),
    'pAcc': 0.875,
    'mAcc': 0.875,
    'fIoU': pytest.approx(0.775),
    'per_class_IoU': {'sky': 0.75, 'building': 0.8, 'car': None},
  }


def test_wrong_number_of_names_is_refused():
  scores = metrics.scores(np.eye(3, dtype=np.int64))
  for render in (metrics.table, metrics.to_json):
    with pytest.raises(ValueError, match='zip'):
      render(scores, ['sky', 'road'])
