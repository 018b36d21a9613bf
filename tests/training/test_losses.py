"""The loss against a NumPy twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.training.losses import check_loss, segmentation_loss

CLASSES, SHAPE = 5, (2, 6, 7)


def example(ignored=0.3):
  rng = np.random.default_rng(0)
  logits = 2 * rng.normal(size=(*SHAPE, CLASSES))
  label = rng.integers(0, CLASSES, SHAPE)
  label[rng.random(SHAPE) < ignored] = 255
  return np.float32(logits), np.int32(label)


def twin(
  logits, label, average, label_smoothing=0.0, threshold=0.0, min_kept=0
):
  """Pixel by pixel, in float64."""
  losses, probabilities = [], []
  for row, true in zip(
    np.float64(logits).reshape(-1, CLASSES), label.ravel(), strict=True
  ):
    if true == 255:
      continue
    log_probs = row - np.log(np.exp(row).sum())
    target = np.full(CLASSES, label_smoothing / CLASSES)
    target[true] += 1 - label_smoothing
    losses.append(-(target * log_probs).sum())
    probabilities.append(np.exp(log_probs[true]))
  losses, probabilities = np.array(losses), np.array(probabilities)
  kept = np.ones(len(losses), bool)
  if threshold:
    kept = probabilities < threshold
    kept[np.argsort(probabilities)[:min_kept]] = True
  count = label.size if average == 'all' else max(kept.sum(), 1)
  return losses[kept].sum() / count, kept.sum()


@pytest.mark.parametrize('average', ['all', 'valid'])
@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
def test_cross_entropy_and_smoothing(average, label_smoothing):
  logits, label = example()
  options = {'average': average, 'label_smoothing': label_smoothing}
  expected, kept = twin(logits, label, **options)
  assert 0 < kept < label.size  # so that the two averages differ
  got = segmentation_loss(logits, label, **options)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize('average', ['all', 'valid'])
@pytest.mark.parametrize(
  ('threshold', 'min_kept', 'kept'),
  [
    (0.3, 0, None),  # the threshold alone
    (0.3, 5, None),  # fewer than the threshold keeps
    (0.01, 20, 20),  # more than the threshold keeps
    (0.01, 10_000, 'valid'),  # more than there are valid pixels
    (1e-9, 0, 0),  # nothing is hard
  ],
)
def test_hard_example_mining(average, threshold, min_kept, kept):
  logits, label = example()
  expected, count = twin(logits, label, average, 0.0, threshold, min_kept)
  if kept is None:
    assert 5 < count < np.sum(label != 255)
  else:
    assert count == (np.sum(label != 255) if kept == 'valid' else kept)
  got = segmentation_loss(
    logits,
    label,
    average=average,
    ohem_threshold=threshold,
    ohem_min_kept=min_kept,
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gradient_is_probability_minus_target_where_it_counts():
  logits, label = example()
  gradient = jax.grad(segmentation_loss)(logits, label, average='all')
  exps = np.exp(np.float64(logits))
  expected = exps / exps.sum(-1, keepdims=True) - np.eye(CLASSES)[label % 255]
  expected[label == 255] = 0
  np.testing.assert_allclose(gradient, expected / label.size, atol=1e-7)


def test_easy_pixels_get_no_gradient():
  logits, label = example()
  gradient = jax.grad(segmentation_loss)(
    logits, label, average='valid', ohem_threshold=0.01, ohem_min_kept=20
  )
  assert np.any(gradient, axis=-1).sum() == 20


@pytest.mark.parametrize('average', ['all', 'valid'])
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'label_smoothing': 0.1},
    {'ohem_threshold': 0.7, 'ohem_min_kept': 3},
    {'ohem_threshold': 0.7, 'ohem_min_kept': 0},
  ],
)
def test_a_batch_without_labels_teaches_nothing(average, options):
  logits, _ = example()
  label = jnp.full(SHAPE, 255)
  loss, gradient = jax.value_and_grad(segmentation_loss)(
    logits, label, average=average, **options
  )
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('average', 'mean'),
    ('label_smoothing', 1.0),
    ('label_smoothing', -0.1),
    ('ohem_threshold', 1.5),
    ('ohem_threshold', -0.1),
    ('ohem_min_kept', -1),
  ],
)
def test_options_out_of_range_are_refused(key, value):
  good = {
    'average': 'all',
    'label_smoothing': 0.0,
    'ohem_threshold': 0.0,
    'ohem_min_kept': 0,
  }
  check_loss(**good)
  with pytest.raises(UserError, match=f'loss.{key} is .*{value}'):
    check_loss(**{**good, key: value})
