"""What EMANet can do, every head can: a run from its first step to its export.

Slow: a head compiles half a dozen programs.
"""

import json
import shutil
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

from emanet_jax import parts
from emanet_jax.evaluation.evaluate import evaluate
from emanet_jax.models.segmenter import create_model
from emanet_jax.prediction.predict import predict
from emanet_jax.tools.export import export_trained
from emanet_jax.training import train
from emanet_jax.training.metric_writer import read_metrics
from tests import tiny

STEPS, SAVED = 4, 2
# Beyond the smallest sizes, what a head needs to fit them.
OPTIONS = {
  'deeplabv3': {'rates': (1, 2, 3)},
  'deeplabv3plus': {'rates': (1, 2, 3)},
  'psa': {'mask_size': 9},
}
SIZES = {'a': (40, 57), 'b': (33, 70)}


def create_config(head, data_dir):
  config = tiny.tiny_config(
    train__steps=STEPS, train__checkpoint_every=SAVED, data__eval_split='val'
  )
  config.data.data_dir = str(data_dir)
  # At the run book's rate, losses rise from random weights, and rounding grows
  # tenfold a step.
  config.optimizer.learning_rate /= 10
  config.model.dtype = 'float32'
  config.model.auxiliary_head.weight = 0.4
  config.model.auxiliary_head.channels = 8
  if head == 'segformer':
    config.model.backbone.name = 'mit'
    config.model.backbone.variant = 'b0'
  if head == 'uper':
    config.model.backbone.output_stride = 32
  if head != config.model.head.name:
    config.model.head.name = head
    for key in config.model.head:
      if key.endswith('channels'):
        config.model.head[key] = 16
  for key, value in OPTIONS.get(head, {}).items():
    config.model.head[key] = value
  return config


def losses(workdir):
  lines = read_metrics(workdir)
  return np.array([x['loss'] for x in lines if x['split'] == 'train'])


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tiny.shared(tmp_path_factory, 'data')


@pytest.fixture(scope='module', params=parts.HEADS.names())
def trained(request, data_dir, tmp_path_factory):
  """The configuration, and the workdir of a run on four devices in float32."""
  config = create_config(request.param, data_dir)
  workdir = tmp_path_factory.mktemp(request.param) / 'run'
  train.train(config, str(workdir))
  return config, workdir


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(trained, tmp_path):
  config, workdir = trained
  again = tmp_path / 'run'
  shutil.copytree(workdir, again)
  shutil.rmtree(again / 'checkpoints' / str(STEPS))
  train.train(config, str(again))
  expected = tiny.hash_tree(tiny.load_step(workdir, STEPS))
  assert tiny.hash_tree(tiny.load_step(again, STEPS)) == expected
  np.testing.assert_array_equal(losses(again), losses(workdir))


@pytest.mark.slow
def test_bfloat16_and_remat_learn_alike(trained, tmp_path):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.model.dtype = 'bfloat16'
  if 'remat' in config.model.backbone:
    config.model.backbone.remat = True
  train.train(config, str(tmp_path / 'run'))
  got = losses(tmp_path / 'run')
  assert len(got) == STEPS
  np.testing.assert_allclose(got[0], losses(workdir)[0], rtol=0.01)
  np.testing.assert_allclose(got, losses(workdir), rtol=0.1)


@pytest.mark.slow
def test_scales_mirroring_and_windows_are_scored(trained):
  config, workdir = trained
  config = config.copy_and_resolve_references()
  config.eval.multi_scale, config.eval.scales = True, (0.75, 1.0)
  config.eval.window, config.eval.window_stride = 65, 44
  evaluate(config, str(workdir))
  (path,) = (workdir / 'eval').glob('*/scores.json')
  scores = json.loads(path.read_text())
  assert 0 < scores['pAcc'] < 1
  assert 0 <= scores['mIoU'] < 1


@pytest.mark.slow
@pytest.mark.parametrize('head', parts.HEADS.names())
def test_the_export_labels_photos_as_prediction_does(head, data_dir, tmp_path):
  """With weights drawn at random, which find several classes in noise."""
  config, workdir = create_config(head, data_dir), tmp_path / 'run'
  variables = tiny.random_variables(create_model(config.model, 7))
  tiny.save_step(config, variables, workdir, STEPS)
  photos = tmp_path / 'photos'
  photos.mkdir()
  rng = np.random.default_rng(0)
  images = {}
  for name, size in SIZES.items():
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    images[name] = cv2.resize(coarse, size[::-1])
    cv2.imwrite(str(photos / f'{name}.png'), images[name][..., ::-1])
  config = config.copy_and_resolve_references()
  config.predict.input = str(photos)
  config.predict.output = str(tmp_path / 'out')
  predict(config, str(workdir))
  # In a process of its own, since shapes of no number are no ints.
  program = (
    'import sys; from tests import test_every_head as t; t.ship(sys.argv)'
  )
  given = head, config.data.data_dir, workdir
  command = [sys.executable, '-c', program, *given, tmp_path / 'network']
  done = subprocess.run(
    command, cwd=tiny.REPOSITORY, stderr=subprocess.PIPE, text=True
  )
  if head == 'psa':
    assert 'psa makes another program for each size' in done.stderr
    return
  assert done.returncode == 0, done.stderr
  content = (tmp_path / 'network').read_bytes()
  label = jax.jit(export.deserialize(bytearray(content)).call)
  for name, image in images.items():
    found = Image.open(tmp_path / 'out' / 'labels' / f'{name}.png')
    got = np.asarray(label(image[None]))[0]
    assert len(np.unique(got)) > 1
    assert got.shape == image.shape[:2]
    assert np.mean(got == np.asarray(found)) > 0.999  # but for ties


def ship(argv):
  _, head, data_dir, workdir, out = argv
  export_trained(create_config(head, data_dir), workdir, out)
