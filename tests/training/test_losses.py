"""The loss against a NumPy twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.errors import UserError
from emanet_jax.training.losses import class_shares, create_loss, focal
from emanet_jax.training.losses.cross_entropy import cross_entropy

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
  got = cross_entropy(logits, label, **options)
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
  got = cross_entropy(
    logits,
    label,
    average=average,
    ohem_threshold=threshold,
    ohem_min_kept=min_kept,
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_gradient_is_probability_minus_target_where_it_counts():
  logits, label = example()
  gradient = jax.grad(cross_entropy)(logits, label, average='all')
  exps = np.exp(np.float64(logits))
  expected = exps / exps.sum(-1, keepdims=True) - np.eye(CLASSES)[label % 255]
  expected[label == 255] = 0
  np.testing.assert_allclose(gradient, expected / label.size, atol=1e-7)


def test_easy_pixels_get_no_gradient():
  logits, label = example()
  gradient = jax.grad(cross_entropy)(
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
  loss, gradient = jax.value_and_grad(cross_entropy)(
    logits, label, average=average, **options
  )
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)


def loss_of(**changes):
  """The configured loss, and its terms, with dots written as '__'."""
  config = default_config().loss
  config.update_from_flattened_dict(
    {k.replace('__', '.'): v for k, v in changes.items()}
  )
  return create_loss(config, CLASSES, np.array([0.5, 0.3, 0.2, 0.0, 0.0]))


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
  loss_of()
  with pytest.raises(UserError, match=f'loss.cross_entropy.{key} is .*{value}'):
    loss_of(**{f'cross_entropy__{key}': value})


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'cross_entropy__class_weights': 'heavy'}, "is 'heavy'; give numbers"),
    ({'cross_entropy__class_weights': (1, 2)}, 'has 2 numbers, .* 5 classes'),
    ({'cross_entropy__class_weights': (1, 1, 1, 1, -1)}, 'give numbers ≥ 0'),
    ({'cross_entropy__class_weights': (0,) * 5}, 'not all 0'),
    ({'cross_entropy__class_weights': ('a',) * 5}, 'give numbers ≥ 0'),
    ({'cross_entropy__weight': -1.0}, 'cross_entropy.weight is -1.0'),
    ({'cross_entropy__weight': 0.0}, 'give one of cross_entropy, dice, focal'),
    ({'dice__smooth': 0.0}, 'dice.smooth is 0.0; it must be > 0'),
    ({'focal__gamma': -1.0}, 'focal.gamma is -1.0; it must be ≥ 0'),
    ({'focal__alpha': 'high'}, "focal.alpha is 'high'; it must be in"),
    ({'focal__alpha': 1.0}, r'focal.alpha is 1.0; it must be in \(0, 1\)'),
  ],
)
def test_impossible_losses_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    loss_of(**changes)


def weighted_twin(logits, label, weights, average, smoothing):
  """torch.nn.functional.cross_entropy with weights, in float64, by pixel."""
  total = count = 0.0
  for row, true in zip(
    np.float64(logits).reshape(-1, CLASSES), label.ravel(), strict=True
  ):
    if true == 255:
      continue
    log_probs = row - np.log(np.exp(row).sum())
    total -= (1 - smoothing) * weights[true] * log_probs[true]
    total -= smoothing / CLASSES * (weights * log_probs).sum()
    count += weights[true]
  return total / (label.size if average == 'all' else count)


@pytest.mark.parametrize('average', ['all', 'valid'])
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_class_weights_are_pytorchs(average, smoothing):
  logits, label = example()
  weights = (0.5, 2.0, 0.0, 1.0, 3.0)
  got = loss_of(
    cross_entropy__class_weights=weights,
    cross_entropy__average=average,
    cross_entropy__label_smoothing=smoothing,
  )(logits, label)
  expected = weighted_twin(logits, label, np.array(weights), average, smoothing)
  assert list(got) == ['cross_entropy']
  np.testing.assert_allclose(got['cross_entropy'], expected, rtol=1e-5)


def test_balanced_weights_make_classes_weigh_alike():
  logits, label = example(ignored=0.0)
  counts = np.bincount(label.ravel(), minlength=CLASSES)
  config = default_config().loss
  config.cross_entropy.class_weights = 'balanced'
  config.cross_entropy.average = 'valid'
  got = create_loss(config, CLASSES, counts / counts.sum())(logits, label)
  # Every class's mean loss counts the same.
  log_probs = np.float64(logits)
  log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
  loss = -np.take_along_axis(log_probs, label[..., None], -1)[..., 0]
  expected = np.mean([loss[label == k].mean() for k in range(CLASSES)])
  np.testing.assert_allclose(got['cross_entropy'], expected, rtol=1e-5)


def test_shares_come_from_the_preparations_report():
  report = {'splits': {'train': {'pixels': {'a': 0.3, 'b': 0.1, 'c': 0.0}}}}
  np.testing.assert_allclose(class_shares(report, 'train'), [0.75, 0.25, 0])


def softmax(logits):
  exps = np.exp(np.float64(logits))
  return exps / exps.sum(-1, keepdims=True)


@pytest.mark.parametrize('over_batch', [False, True])
@pytest.mark.parametrize('ignore_background', [False, True])
def test_dice_is_one_minus_the_overlap_of_labelled_pixels(
  over_batch, ignore_background
):
  logits, label = example()
  got = loss_of(
    cross_entropy__weight=0.0,
    dice__weight=2.0,
    dice__smooth=0.7,
    dice__over_batch=over_batch,
    dice__ignore_background=ignore_background,
  )(logits, label)
  probabilities, losses = softmax(logits), []
  groups = [slice(None)] if over_batch else [[i] for i in range(len(label))]
  for group in groups:
    valid = label[group] != 255
    for k in range(int(ignore_background), CLASSES):
      p = probabilities[group][..., k][valid]
      t = label[group][valid] == k
      overlap = (p * t).sum()
      losses.append(1 - (overlap + 0.7) / ((p.sum() + t.sum()) / 2 + 0.7))
  np.testing.assert_allclose(got['dice'], 2 * np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize('alpha', [None, 0.25])
@pytest.mark.parametrize('gamma', [0.0, 2.0])
def test_focal_is_weighted_binary_cross_entropy(alpha, gamma):
  logits, label = example()
  got = focal.create(None, None, gamma=gamma, alpha=alpha)(logits, label)
  p = 1 / (1 + np.exp(-np.float64(logits)))
  truth = label[..., None] == np.arange(CLASSES)
  p_true = np.where(truth, p, 1 - p)
  loss = -((1 - p_true) ** gamma) * np.log(p_true)
  if alpha:
    loss *= np.where(truth, alpha, 1 - alpha)
  valid = label != 255
  expected = loss.sum(-1)[valid].sum() / valid.sum()
  np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize('name', ['dice', 'focal'])
def test_ignored_pixels_have_no_gradient(name):
  logits, label = example()
  loss = loss_of(**{'cross_entropy__weight': 0.0, f'{name}__weight': 1.0})
  gradient = jax.grad(lambda x: loss(x, label)[name])(logits)
  assert np.all(np.isfinite(gradient))
  np.testing.assert_array_equal(gradient[label == 255], 0)
  assert np.all(np.any(gradient[label != 255], axis=-1))


@pytest.mark.parametrize('name', ['dice', 'focal'])
def test_nothing_labelled_is_finite_and_teaches_nothing(name):
  logits, _ = example()
  label = jnp.full(SHAPE, 255)
  loss = loss_of(**{'cross_entropy__weight': 0.0, f'{name}__weight': 1.0})
  value, gradient = jax.value_and_grad(lambda x: loss(x, label)[name])(logits)
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


def test_terms_add_up_with_their_weights():
  logits, label = example()
  both = loss_of(cross_entropy__weight=0.5, dice__weight=3.0)(logits, label)
  assert list(both) == ['cross_entropy', 'dice']
  alone = loss_of()(logits, label)['cross_entropy']
  np.testing.assert_allclose(both['cross_entropy'], 0.5 * alone, rtol=1e-6)
