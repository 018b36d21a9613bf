"""Scores against the authors' figures, a NumPy twin and properties."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from emanet_jax.errors import UserError
from emanet_jax.evaluation.confusion import confusion_matrix
from emanet_jax.evaluation.metrics import create_metrics
from emanet_jax.evaluation.scores import score, table, to_json

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
  hist = confusion_matrix(golden['label'], golden['pred'], 21)
  np.testing.assert_array_equal(hist, golden['hist'])


def test_scores_equal_the_authors_to_the_last_bit(golden):
  scores = score(golden['hist'])
  for name in ('mIoU', 'pAcc', 'mAcc', 'fIoU'):
    assert scores.summary[name] == golden[name], name
  np.testing.assert_array_equal(scores.per_class['IoU'], golden['iou'])


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
  jitted = jax.jit(confusion_matrix, static_argnums=(2, 3))
  hist = jitted(label, prediction, 7, ignore_label)
  assert hist.dtype == np.int32
  np.testing.assert_array_equal(
    hist, counted(label, prediction, 7, ignore_label)
  )


def test_uint8_labels_do_not_overflow():
  label = np.full((1, 4, 4), 170, np.uint8)
  hist = np.array(confusion_matrix(label, label, 171))
  assert hist[170, 170] == 16
  assert hist.sum() == 16


def test_matrix_is_additive_over_batches():
  label, prediction = random_pair((4, 10, 12), 0, 5)
  count = functools.partial(confusion_matrix, num_classes=5)
  whole = count(label, prediction)
  halves = count(label[:1], prediction[:1]) + count(label[1:], prediction[1:])
  np.testing.assert_array_equal(whole, halves)


def test_matrix_of_a_large_batch_is_exact():
  # float32 would stop counting one by one at 2^24 in a single cell.
  shape = (65, 513, 513)
  label = np.zeros(shape, np.uint8)
  hist = confusion_matrix(label, label, 2)
  assert int(hist[0, 0]) == np.prod(shape) > 2**24


def test_sharded_batch_is_counted_where_it_lies():
  devices = jax.devices()
  if len(devices) < 2:
    pytest.skip('one device: XLA_FLAGS can split a CPU into several')
  mesh = jax.sharding.Mesh(np.array(devices), ('data',))
  shard = NamedSharding(mesh, PartitionSpec('data'))
  label, prediction = random_pair((2 * len(devices), 9, 7), 0, 5)
  jitted = jax.jit(
    functools.partial(confusion_matrix, num_classes=5),
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
  scores = score(hist)
  np.testing.assert_array_equal(scores.per_class['IoU'], [0.6, 0, 0, np.nan])
  np.testing.assert_array_equal(
    scores.per_class['accuracy'], [0.75, 0, np.nan, np.nan]
  )
  np.testing.assert_array_equal(scores.share, [0.8, 0.2, 0, 0])
  assert scores.summary['mIoU'] == pytest.approx(0.6 / 3)
  assert scores.summary['mAcc'] == pytest.approx(0.75 / 2)
  assert scores.summary['pAcc'] == pytest.approx(0.6)
  assert scores.summary['fIoU'] == pytest.approx(0.8 * 0.6)


@pytest.mark.filterwarnings('error')
def test_a_split_without_pixels_has_no_scores():
  scores = score(np.zeros((3, 3), np.int64))
  assert len(scores.summary) == 5
  assert np.isnan(list(scores.summary.values())).all()


def test_a_perfect_prediction_scores_one():
  scores = score(np.diag([5, 1, 2**40]))
  assert len(scores.summary) == 5
  assert set(scores.summary.values()) == {1.0}


def test_int32_matrix_does_not_overflow():
  hist = np.full((2, 2), 2**30, np.int32)
  assert score(hist).summary['pAcc'] == 0.5


def test_table():
  scores = score(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
  assert table(scores, ['sky', 'building', 'car']).splitlines() == [
    'class        IoU  accuracy      F1  pixels',
    '------------------------------------------',
    'sky        75.00     75.00   85.71   50.00',
    'building   80.00    100.00   88.89   50.00',
    'car            -         -       -    0.00',
    '------------------------------------------',
    'mIoU       77.50',
    'fIoU       77.50',
    'pAcc       87.50',
    'mAcc       87.50',
    'mF1        87.30',
  ]


def test_json_round_trip():
  scores = score(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
  plain = to_json(scores, ['sky', 'building', 'car'])
  assert json.loads(json.dumps(plain, allow_nan=False)) == {
    'mIoU': pytest.approx(0.775),
    'pAcc': 0.875,
    'mAcc': 0.875,
    'fIoU': pytest.approx(0.775),
    'mF1': pytest.approx((6 / 7 + 8 / 9) / 2),
    'per_class_IoU': {'sky': 0.75, 'building': 0.8, 'car': None},
    'per_class_accuracy': {'sky': 0.75, 'building': 1.0, 'car': None},
    'per_class_F1': {
      'sky': pytest.approx(6 / 7),
      'building': pytest.approx(8 / 9),
      'car': None,
    },
  }


def test_wrong_number_of_names_is_refused():
  scores = score(np.eye(3, dtype=np.int64))
  for render in (table, to_json):
    with pytest.raises(ValueError, match='zip'):
      render(scores, ['sky', 'road'])


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
  rng = np.random.default_rng(0)
  hist = rng.integers(0, 100, (6, 6))
  hist[5], hist[:, 4] = 0, 0  # 5 is only predicted, 4 only labelled
  found = score(hist).per_class
  for k in range(4):
    precision = hist[k, k] / hist[:, k].sum()
    recall = hist[k, k] / hist[k].sum()
    expected = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(found['F1'][k], expected, rtol=1e-12)
  np.testing.assert_array_equal(found['F1'][4:], 0)
  np.testing.assert_allclose(
    found['F1'], 2 * found['IoU'] / (1 + found['IoU']), rtol=1e-12
  )


def test_metrics_are_chosen_and_one_is_left():
  sections = {name: {'enabled': True} for name in ('f1', 'iou', 'accuracy')}
  assert list(create_metrics(sections)) == ['iou', 'accuracy', 'f1']
  sections['f1']['enabled'] = False
  found = score(np.eye(2, dtype=np.int64), create_metrics(sections))
  assert list(found.summary) == ['mIoU', 'fIoU', 'pAcc', 'mAcc']
  assert list(found.per_class) == ['IoU', 'accuracy']
  for section in sections.values():
    section['enabled'] = False
  with pytest.raises(UserError, match=r'enable one of accuracy, f1, iou'):
    create_metrics(sections)
