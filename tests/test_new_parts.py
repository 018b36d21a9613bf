"""A part of each kind is one new file, and flags alone use it.

The package is copied and gets one new file of each kind; nothing else in it is
touched. What the files do is simple enough to be told from the outcome.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from emanet_jax.training.metric_writer import read_metrics
from tests import tiny
from tests.xla_flags import QUICK_PROGRAM

FILES = {
  'models/heads/plain.py': '''
import flax.linen as nn
from emanet_jax.models.layers import Conv
from emanet_jax.models.norm import at_least_float32
from emanet_jax.models.outputs import sow_loss, sow_output

class PlainHead(nn.Module):
  num_classes: int
  width: int

  @nn.compact
  def __call__(self, features, *, train, extent=None):
    x = nn.relu(Conv(self.width, name='reduce')(features[-1]))
    logits = Conv(self.num_classes, name='classifier')(at_least_float32(x))
    if train:
      sow_output(self, 'again', logits, 0.5)
      sow_loss(self, 'constant', logits.sum() * 0 + 7.0, 0.25)
    return logits

def create(num_classes, norm_momentum, *, width: int = 4):
  """width: Of the first convolution."""
  return PlainHead(num_classes, width)
''',
  'models/backbones/pooled.py': '''
import flax.linen as nn
from emanet_jax.models.layers import ConvNorm, halve, max_pool

class Pooled(nn.Module):
  width: int
  norm_momentum: float
  output_stride: int = 8

  @nn.compact
  def __call__(self, x, *, train, extent=None):
    outputs = []
    for i in range(3):
      x = ConvNorm(self.width, 3, name=f'conv{i}',
                   norm_momentum=self.norm_momentum)(
        x, train=train, extent=extent)
      x, extent = max_pool(x, extent), halve(extent)
      outputs.append(x)
    return tuple(outputs)

  def out_extents(self, extent):
    extents = []
    for _ in range(3):
      extent = halve(extent)
      extents.append(extent)
    return tuple(extents)

def create(norm_momentum, *, width: int = 8):
  """width: Of each convolution."""
  return Pooled(width, norm_momentum)
''',
  'training/losses/confidence.py': '''
import jax

def create(num_classes, class_shares, *, power: float = 1.0):
  """power: Of the probabilities."""
  return lambda logits, label: (jax.nn.softmax(logits) ** power).mean()
''',
  'training/optimizers/fixed.py': '''
import optax

def create(steps, frozen, *, rate: float = 0.5):
  """rate: Of every step."""
  return optax.sgd(rate), lambda step: rate
''',
  'data/input/augmentations/invert.py': '''
def create(*, probability: float = 0.0):
  """probability: Of the negative."""
  if not probability:
    return None
  def apply(image, label, rng):
    return (255 - image if rng.random() < probability else image), label
  return apply
''',
  'evaluation/metrics/pixels.py': '''
import numpy as np
from emanet_jax.evaluation.metrics import Metric

def create(*, per: int = 1):
  """per: Unit."""
  def measure(confusion):
    counts = confusion.sum(1) / per
    return Metric({'pixels': float(counts.sum())}, {'count': counts})
  return measure
''',
}
FLAGS = (
  '--config.model.head.name=plain',
  '--config.model.head.width=6',
  '--config.model.backbone.name=pooled',
  '--config.model.backbone.width=12',
  '--config.loss.confidence.weight=2.0',
  '--config.loss.confidence.power=1.0',
  '--config.optimizer.name=fixed',
  '--config.optimizer.rate=0.0',
  '--config.data.augmentations.invert.probability=1.0',
  '--config.eval.metrics.pixels.per=1000',
  '--config.data.crop_size=33',
  '--config.train.batch_size=4',
  '--config.train.steps=2',
  '--config.train.log_every=1',
  '--config.eval.num_pictures=0',
)


@pytest.fixture(scope='module')
def extended(tmp_path_factory):
  """A folder with a copy of the package, and the new files in it."""
  folder = tmp_path_factory.mktemp('extended')
  package = folder / 'emanet_jax'
  leave_out = shutil.ignore_patterns('__pycache__')
  shutil.copytree(tiny.REPOSITORY / 'emanet_jax', package, ignore=leave_out)
  for path, source in FILES.items():
    assert not (package / path).exists()
    (package / path).write_text(f'"""New."""\n{source}')
  return folder


def run(extended, workdir, *flags):
  config = tiny.REPOSITORY / 'configs' / 'shapes.py'
  return subprocess.run(
    [
      *(sys.executable, '-m', 'emanet_jax.main', f'--config={config}'),
      *(f'--workdir={workdir}', *flags),
    ],
    cwd=extended,
    env={**os.environ, **QUICK_PROGRAM, 'PYTHONPATH': str(extended)},
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.fixture(scope='module')
def workdir(extended, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'new'
  data = tiny.shared(tmp_path_factory, 'data')
  finished = run(extended, workdir, *FLAGS, f'--config.data.data_dir={data}')
  assert finished.returncode == 0, finished.stderr
  return workdir


def test_the_new_loss_and_what_the_head_sows_take_part(workdir):
  first, second = (r for r in read_metrics(workdir) if r['split'] == 'train')
  for record in (first, second):
    # Probabilities of seven classes: their mean is 1/7, times the weight.
    np.testing.assert_allclose(record['confidence_loss'], 2 / 7, rtol=1e-5)
    assert record['constant_loss'] == 7
    main = record['cross_entropy_loss'] + record['confidence_loss']
    np.testing.assert_allclose(record['again_loss'], main, rtol=1e-5)
    expected = main + 0.5 * record['again_loss'] + 0.25 * 7
    np.testing.assert_allclose(record['loss'], expected, rtol=1e-5)


def test_the_new_optimizer_takes_its_option(workdir):
  records = [r for r in read_metrics(workdir) if r['split'] == 'train']
  assert [r['learning_rate'] for r in records] == [0, 0]


def test_the_new_backbone_and_head_have_the_widths_of_the_flags(workdir):
  params = tiny.load_step(workdir)['state']['params']
  assert params['head']['reduce']['kernel'].shape == (1, 1, 12, 6)
  assert params['head']['classifier']['kernel'].shape == (1, 1, 6, 7)
  assert params['backbone'].keys() == {'conv0', 'conv1', 'conv2'}


def test_the_new_augmentation_is_part_of_what_batches_follow_from(workdir):
  made_with = tiny.load_step(workdir)['data']['made_with']
  assert made_with['augmentations'] == {'invert': {'probability': 1.0}}


def test_the_new_metric_is_reported(workdir):
  scores = json.loads((workdir / 'eval' / 'scores.json').read_text())
  counted = sum(scores['per_class_count'].values())
  assert scores['pixels'] == pytest.approx(counted)
  assert 500 < scores['pixels'] < 96 * 128 * 128 / 1000
  assert '<button>count</button>' in (workdir / 'eval/report.html').read_text()


def test_an_option_of_another_head_is_refused(extended, tmp_path):
  finished = run(
    extended,
    tmp_path / 'never',
    '--config.model.head.name=plain',
    '--config.model.head.num_bases=3',
  )
  assert finished.returncode == 1
  assert finished.stderr.strip() == (
    'error: in the configuration: there is no config.model.head.num_bases; '
    "config.model.head, with the name 'plain', has name, width"
  )
