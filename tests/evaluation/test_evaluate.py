"""Evaluation is exact: batching, padding and devices change no count."""

import dataclasses
import functools
import json
import pathlib

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import get_dataset
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.inference import batching, predictor
from emanet_jax.models.segmenter import MEAN, STD, create_model
from emanet_jax.runtime import sharding
from tests import tiny
from tests.compilations import compilations

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
  """Returns a function of the options → evaluation, number of compilations."""
  model, variables = network

  @functools.cache
  def run(batch_size, devices, step, space=1):
    local = jax.devices()[:devices]
    assert len(local) == devices
    mesh = sharding.create_mesh(local)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(jax, 'local_devices', lambda: local)
      with compilations('view') as compiled:
        evaluation = evaluate.run_split(
          model,
          jax.device_put(variables, sharding.replicated(mesh)),
          dataset,
          'val',
          evaluate.create_eval_step(model, CLASSES, predictor.Protocol()),
          batch_size=batch_size,
          shape_step=step,
          space=space,
          num_pictures=3,
        )
    return evaluation, len(compiled)

  return run


@pytest.mark.parametrize(
  ('batch_size', 'devices', 'space', 'step', 'shapes'),
  [
    *((1, 1, 1, 0, 1), (3, 1, 1, 0, 1), (8, 1, 1, 0, 1), (3, 2, 1, 0, 1)),
    *((1, 4, 1, 0, 1), (2, 1, 1, STRIDE, 2), (3, 2, 1, STRIDE, 2)),
    *((3, 1, 1, 32, 2), (1, 2, 2, 0, 1), (3, 4, 2, STRIDE, 2)),
  ],
)
def test_every_batching_counts_like_images_alone(
  run, alone, batch_size, devices, space, step, shapes
):
  evaluation, compiled = run(batch_size, devices, step, space)
  _, confusion = alone
  assert np.count_nonzero(confusion.sum(0)) >= 3  # No constant prediction.
  np.testing.assert_array_equal(evaluation.confusion, confusion)
  assert evaluation.confusion.dtype == np.int64
  assert evaluation.num_images == len(SIZES)
  assert evaluation.num_shapes == compiled == shapes


def test_a_scale_is_compiled_once_for_all_sizes_and_both_sides(
  network, examples
):
  model, variables = network
  predict = predictor.create_predictor(
    model, predictor.Protocol((0.5, 1.0, 1.5), flip=True)
  )
  with compilations('view') as compiled:
    for image, _ in examples[:4]:
      batch = batching.pad_images([image], (41, 41), 2)
      predict(variables, batch['image'], batch['size'])
  assert len(compiled) == 3


def test_pictures_are_the_first_images_at_native_size(run, alone, examples):
  evaluation, _ = run(8, 1, 0)
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


def test_rows_for_devices_that_are_not_there_are_refused(tmp_path):
  config = tiny.tiny_config(mesh__space=3)
  with pytest.raises(UserError, match=r'mesh\.space is 3; .* process, 4'):
    evaluate.evaluate(config, str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_rows_are_shared_out_as_the_configuration_says(
  network, dataset, alone, monkeypatch, tmp_path
):
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: dataset)
  found = tiny.batches_spaces(monkeypatch)
  config = tiny.tiny_config(mesh__space=2, eval__num_pictures=0)
  tiny.save_step(config, network[1], tmp_path, step=7)
  evaluation = evaluate.evaluate(config, str(tmp_path))
  np.testing.assert_array_equal(evaluation.confusion, alone[1])
  assert set(found) == {2}


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
    *('mIoU', 'pAcc', 'mAcc', 'fIoU', 'mF1', 'per_class_IoU'),
    *('per_class_accuracy', 'per_class_F1'),
    *('num_images', 'dataset', 'split', 'step', 'dtype'),
    *('scales', 'flip', 'window', 'stride'),
  }
  confusion = alone[1].astype(np.float64)
  right = np.diag(confusion)
  iou = right / (confusion.sum(0) + confusion.sum(1) - right)
  assert list(scores['per_class_IoU']) == list(SPEC.classes)
  np.testing.assert_allclose(list(scores['per_class_IoU'].values()), iou)
  assert scores['mIoU'] == pytest.approx(iou.mean())
  assert scores['pAcc'] == pytest.approx(right.sum() / confusion.sum())
  assert (scores['num_images'], scores['step']) == (len(SIZES), 7)
  assert (scores['dataset'], scores['split']) == ('shapes', 'val')
  assert (scores['scales'], scores['flip']) == ([1.0], False)
  assert (scores['window'], scores['dtype']) == (0, 'float32')
  assert (tmp_path / 'eval' / 'report.html').stat().st_size > 10_000
  pages = sorted(p.name for p in (tmp_path / 'eval').glob('*.png'))
  assert pages == ['attention.png', 'confusion.png', 'overlays.png']
  for page in pages:
    pixels = np.asarray(Image.open(tmp_path / 'eval' / page).convert('RGB'))
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 5


def test_other_views_and_steps_lie_beside(
  network, dataset, examples, monkeypatch, tmp_path
):
  """Mirrored at one scale, and not the latest step."""
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: dataset)
  model, variables = network
  config = tiny.tiny_config(eval__flip=True)
  tiny.save_step(config, variables, tmp_path, step=7)
  untrained = jax.tree.map(np.zeros_like, variables)
  tiny.save_step(config, untrained, tmp_path, step=9)
  evaluation = evaluate.evaluate(config, str(tmp_path), 7)
  (folder,) = (tmp_path / 'eval').iterdir()
  assert folder.name == 'flip_step_7'
  scores = json.loads((folder / 'scores.json').read_text())
  assert (scores['step'], scores['flip'], scores['scales']) == (7, True, [1.0])
  page = (folder / 'report.html').read_text()
  assert 'one scale, mirrored too, whole images' in page

  predict = predictor.create_predictor(model, predictor.Protocol())
  confusion = np.zeros_like(evaluation.confusion)
  for image, label in examples:
    height, width = label.shape
    views = []
    for turned in (image, image[:, ::-1]):
      batch = batching.pad_images([turned], (41, 41), 1)
      found, _ = predict(variables, batch['image'], batch['size'])
      views.append(np.asarray(found)[0, :height, :width])
    prediction = (views[0] + views[1][:, ::-1]).argmax(-1)
    counts = label != 255
    np.add.at(confusion, (label[counts], prediction[counts]), 1)
  # Two classes may be equally probable but for rounding.
  assert np.abs(evaluation.confusion - confusion).sum() <= 4


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


def test_evaluate_refuses_other_classes(
  network, dataset, monkeypatch, tmp_path
):
  """As many as the checkpoint's, but in another order."""
  config = tiny.tiny_config()
  tiny.save_step(config, network[1], tmp_path, step=7, classes=SPEC.classes)
  turned = dataclasses.replace(
    dataset,
    spec=dataclasses.replace(SPEC, classes=SPEC.classes[::-1]),
  )
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: turned)
  with pytest.raises(UserError, match='was trained for the classes'):
    evaluate.evaluate(config, str(tmp_path))
  fewer = dataclasses.replace(
    dataset, spec=dataclasses.replace(SPEC, classes=SPEC.classes[:-1])
  )
  tiny.save_step(config, network[1], tmp_path / 'other', step=7)
  monkeypatch.setattr(pipeline, 'open_dataset', lambda config, splits: fewer)
  with pytest.raises(UserError, match=r'classifier has 7 classes.* has 6'):
    evaluate.evaluate(config, str(tmp_path / 'other'))
