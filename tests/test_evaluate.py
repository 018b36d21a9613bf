"""Evaluation is exact: batching, padding and devices change no count."""

import functools
import json
import pathlib

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from emanet_jax import evaluate, inference, sharding
from emanet_jax.data import pipeline
from emanet_jax.data.datasets import get_dataset
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import MEAN, STD, create_model
from tests import tiny

SPEC = get_dataset('shapes').SPEC
CLASSES, STRIDE = SPEC.num_classes, 8
# Five are padded to 33×41, one of which has that size, and four to 41×33: a
# batch size of more than 1 leaves a partial batch.
SIZES = (
  *((30, 40), (33, 41), (29, 37), (40, 30), (41, 29)),
  *((27, 39), (35, 26), (33, 40), (37, 33)),
)
PADDED = {(33, 41), (41, 33)}


@pytest.fixture(scope='module')
def examples():
  """Smooth random photos, and labels in patches, some ignored."""
  rng = np.random.default_rng(0)
  found = []
  for height, width in SIZES:
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    label = rng.choice([*range(CLASSES), 255], (4, 5)).astype(np.uint8)
    size = (width, height)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    found.append((image, label))
  return found


@pytest.fixture(scope='module')
def dataset(examples):
  records = tuple(
    {
      'id': f'image{i}'.encode(),
      'image': cv2.imencode('.png', image[..., ::-1])[1].tobytes(),
      'label': cv2.imencode('.png', label)[1].tobytes(),
    }
    for i, (image, label) in enumerate(examples)
  )
  return tiny.Listed(SPEC, pathlib.Path('none'), {'val': len(records)}, records)


@pytest.fixture(scope='module')
def network():
  """A model, and variables under which it predicts several classes."""
  model = create_model(tiny.tiny_config().model, CLASSES)
  return model, tiny.random_variables(model)


@pytest.fixture(scope='module')
def alone(network, examples):
  """Logits of every image alone, padded by hand; and their confusion."""
  model, variables = network
  apply = jax.jit(lambda x: model.apply(variables, x, train=False))
  mean, std = np.float32(MEAN) * 255, np.float32(STD) * 255
  confusion = np.zeros((CLASSES, CLASSES), np.int64)
  logits = []
  for image, label in examples:
    height, width = label.shape
    above = -(height - 1) % STRIDE, -(width - 1) % STRIDE
    padding = ((0, above[0]), (0, above[1]), (0, 0))
    padded = np.pad((np.float32(image) - mean) / std, padding)
    logits.append(np.asarray(apply(padded[None]))[0])
    prediction = logits[-1][:height, :width].argmax(-1)
    for true, found in zip(label.ravel(), prediction.ravel(), strict=True):
      if true != 255:
        confusion[true, found] += 1
  return logits, confusion


@pytest.fixture(scope='module')
def run(network, dataset):
  """Returns a function (batch_size, devices) → evaluation, compilations."""
  model, variables = network

  @functools.cache
  def run(batch_size, devices):
    local = jax.devices()[:devices]
    assert len(local) == devices
    eval_step = evaluate.create_eval_step(model, CLASSES)
    mesh = sharding.create_mesh(local)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, 'local_devices', lambda: local)
      evaluation = evaluate.run_split(
        eval_step,
        jax.device_put(variables, sharding.replicated(mesh)),
        dataset,
        'val',
        batch_size=batch_size,
        stride=STRIDE,
        num_pictures=3,
      )
    return evaluation, eval_step._cache_size()

  return run


@pytest.mark.parametrize(
  ('batch_size', 'devices'), [(1, 1), (2, 1), (3, 1), (8, 1), (3, 2), (1, 4)]
)
def test_every_batching_counts_like_images_alone(
  run, alone, batch_size, devices
):
  evaluation, compilations = run(batch_size, devices)
  _, confusion = alone
  assert np.count_nonzero(confusion.sum(0)) >= 3  # No constant prediction.
  np.testing.assert_array_equal(evaluation.confusion, confusion)
  assert evaluation.confusion.dtype == np.int64
  assert evaluation.num_images == len(SIZES)
  assert evaluation.num_shapes == compilations == len(PADDED)


def test_pictures_are_the_first_images_at_native_size(run, alone, examples):
  evaluation, _ = run(2, 1)
  ids = [picture['id'] for picture in evaluation.pictures]
  assert ids == ['image0', 'image1', 'image2']
  logits, _ = alone
  for i, picture in enumerate(evaluation.pictures):
    image, label = examples[i]
    height, width = label.shape
    np.testing.assert_array_equal(picture['image'], image)
    np.testing.assert_array_equal(picture['label'], label)
    expected = logits[i][:height, :width].argmax(-1)
    np.testing.assert_array_equal(picture['prediction'], expected)
    z = picture['responsibilities']
    np.testing.assert_allclose(z.sum(-1), 1, rtol=1e-5)
    inside = (1 + (height - 1) // STRIDE, 1 + (width - 1) // STRIDE)
    assert z.shape == (*inside, 4)


def test_predict_logits_is_the_network_on_zero_padding(
  network, alone, examples
):
  model, variables = network
  expected, _ = alone
  indices = [0, 1, 2]
  batch = inference.pad_images([examples[i][0] for i in indices], (33, 41), 5)
  # What lies beyond an image's size must not matter.
  batch['image'][0, 30:] = 255
  batch['image'][2, :, 37:] = 99
  predict = jax.jit(functools.partial(inference.predict_logits, model))
  logits, sown = predict(variables, batch['image'], batch['size'])
  for row, i in enumerate(indices):
    np.testing.assert_allclose(logits[row], expected[i], atol=1e-4)
  assert np.abs(np.asarray(expected[0])).max() > 0.1
  assert sown['responsibilities'].shape == (5, 5, 6, 4)


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_padded_size_is_the_smallest_that_is_one_modulo_stride(stride):
  for length in range(1, 3 * stride + 2):
    padded, other = inference.padded_size(length, stride + 1, stride)
    assert padded % stride == 1
    assert 0 <= padded - length < stride
    assert other == stride + 1


def test_groups_hold_every_image_once(examples):
  given = [{'label': label, 'image': image} for image, label in examples]
  groups = list(evaluate.same_size_groups(given, 3, STRIDE))
  indices = [example['index'] for group, _ in groups for example in group]
  assert sorted(indices) == list(range(len(SIZES)))
  assert {size for _, size in groups} == PADDED
  for group, size in groups:
    assert len(group) <= 3
    for example in group:
      native = example['label'].shape
      assert inference.padded_size(*native, STRIDE) == size


def test_evaluate_reports_the_checkpoint(
  network, dataset, alone, monkeypatch, tmp_path
):
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: dataset)
  config = tiny.tiny_config(eval__num_pictures=2)
  tiny.save_step(config, network[1], tmp_path, step=7)
  evaluation = evaluate.evaluate(config, str(tmp_path))
  np.testing.assert_array_equal(evaluation.confusion, alone[1])

  scores = json.loads((tmp_path / 'eval' / 'scores.json').read_text())
  assert scores.keys() == {
    *('mIoU', 'pAcc', 'mAcc', 'fIoU', 'per_class_IoU'),
    *('num_images', 'step', 'dataset'),
  }
  confusion = alone[1].astype(np.float64)
  right = np.diag(confusion)
  iou = right / (confusion.sum(0) + confusion.sum(1) - right)
  assert list(scores['per_class_IoU']) == list(SPEC.classes)
  np.testing.assert_allclose(list(scores['per_class_IoU'].values()), iou)
  assert scores['mIoU'] == pytest.approx(iou.mean())
  assert scores['pAcc'] == pytest.approx(right.sum() / confusion.sum())
  assert (scores['num_images'], scores['step']) == (len(SIZES), 7)
  assert scores['dataset'] == 'shapes'
  pages = sorted(p.name for p in (tmp_path / 'eval').glob('*.png'))
  assert pages == ['attention.png', 'confusion.png', 'overlays.png']
  for page in pages:
    pixels = np.asarray(Image.open(tmp_path / 'eval' / page).convert('RGB'))
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 5


def test_evaluate_refuses_what_it_cannot_score(
  network, dataset, monkeypatch, tmp_path
):
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: dataset)
  config = tiny.tiny_config()
  missing = tmp_path / 'missing'
  with pytest.raises(UserError, match='holds no checkpoint; train first'):
    evaluate.evaluate(config, str(missing))
  assert not missing.exists()

  tiny.save_step(config, network[1], tmp_path, step=7)
  config.model.head.num_bases = 8
  config.train.steps = 9  # Of no matter to evaluation.
  with pytest.raises(UserError, match='num_bases: checkpoint 4, now 8') as e:
    evaluate.evaluate(config, str(tmp_path))
  assert 'train.steps' not in str(e.value)
  assert not (tmp_path / 'eval').exists()
