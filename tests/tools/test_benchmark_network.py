"""The benchmark of the network: FLOPs as the paper counts, whole reports."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.models import flops
from emanet_jax.models.ema_unit import EMAUnit
from emanet_jax.models.layers import Conv
from emanet_jax.models.segmenter import create_model
from emanet_jax.tools.benchmark import network, subjects
from tests import tiny

HAS_TORCH = importlib.util.find_spec('torch') is not None


def abstract(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def count(module, x, **options):
  variables = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, **options), x
  )
  return flops.count(lambda v, x: module.apply(v, x, **options), variables, x)


def test_flops_of_the_backbone_are_the_papers():
  """190.58 G multiply-adds in the paper, which counts some more than these."""
  model = create_model(default_config().model, 21).backbone
  got = count(model, abstract(1, 513, 513, 3), train=False) / 2e9
  assert got == pytest.approx(190.58, rel=0.005)
  assert got < 190.58


def test_flops_of_em_attention_are_the_papers():
  """43.06 G in the paper: the 3×3 convolution, the unit and its 3 rounds."""
  x = abstract(1, 65, 65, 512)
  unit = count(EMAUnit(), x, train=False)
  conv = count(Conv(512, 3), abstract(1, 65, 65, 2048))
  assert (unit + conv) / 2e9 == pytest.approx(43.06, rel=0.001)


def test_flops_of_branches_and_loops():
  a, b = abstract(3, 4), abstract(4, 5)
  once = 2 * 3 * 4 * 5
  assert flops.count(jnp.matmul, a, b) == once
  assert flops.count(jax.jit(jnp.matmul), a, b) == once

  def repeated(a, b):
    return jax.lax.scan(lambda c, _: (c + a @ b, None), 0.0 * (a @ b), length=7)

  assert flops.count(repeated, a, b) == 8 * once

  def either(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 5)))

  assert flops.count(either, a, b) == once


def test_a_step_of_the_training_subject_is_a_training_step(monkeypatch):
  """It learns: the loss of its one batch falls."""
  config = tiny.tiny_config().model
  config.head.dropout_rate = 0.0
  tiny_network = create_model(config, subjects.CLASSES)
  variables = subjects.draw_variables(tiny_network)
  monkeypatch.setattr(
    subjects, 'network', lambda *_: (tiny_network, dict(variables))
  )
  monkeypatch.setattr(subjects.startup, 'keep_freed_memory', lambda: None)
  subject = subjects.train(50, 2, 33, 'float32', remat=False)
  assert subject.about['compilations'] == 1
  assert subject.about['planned_bytes'] > 1e6
  forward = flops.count(tiny_network.apply, variables, abstract(2, 33, 33, 3))
  assert subject.about['flops'] == 3 * forward
  history = [float(subject.step()[1]['loss']) for _ in range(4)]
  assert np.isfinite(history).all()
  assert history[-1] < history[0]


@pytest.mark.parametrize('with_flax', [False, True])
def test_flaxs_convolutions_take_part_if_asked_to(with_flax, monkeypatch):
  asked = {}

  def run(contenders, **_):
    asked.update(contenders)
    found = {'flops': 1, 'seconds': [1, 1, 1]}
    return {
      'contenders': {name: dict(found) for name in contenders},
      'ratios': dict.fromkeys(contenders),
    }

  monkeypatch.setattr(network.contest, 'run', run)
  options = {'depth': 50, 'batch': 2, 'size': 33, 'dtype': 'float32'}
  network.measure('train', options, rounds=1, steps=1, with_flax=with_flax)
  ours = [c for c in asked.values() if c.prepare.endswith('.subjects:train')]
  ways = [c.options.get('convolution', 'fast') for c in ours]
  assert ways == (['fast', 'flax'] if with_flax else ['fast'])
  assert asked['ours'].options == options


@pytest.fixture(scope='module')
def report(tmp_path_factory):
  out = tmp_path_factory.mktemp('benchmark') / 'em.json'
  finished = subprocess.run(
    [
      *(sys.executable, '-m', 'emanet_jax.tools.benchmark', 'em'),
      *('--size=9', '--channels=16', '--batch=3', '--rounds=2', '--steps=1'),
      f'--out={out}',
    ],
    cwd=tiny.REPOSITORY,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert finished.returncode == 0, finished.stderr
  return json.loads(out.read_text()), finished.stdout


def test_the_figures_add_up(report):
  result, _ = report
  names = ['ours']
  if HAS_TORCH:
    names += ['PyTorch contiguous', 'PyTorch channels_last']
  assert list(result['contenders']) == names
  assert list(result['ratios']) == names[1:]
  ours = result['contenders']['ours']
  assert ours['compilations'] == 1
  assert ours['restore_seconds'] > 0
  for found in result['contenders'].values():
    seconds = found['seconds'][0]
    middle, least, most = found['images_per_second']
    assert middle == pytest.approx(3 / seconds)
    assert least <= middle <= most
    rate = ours['flops'] / seconds
    assert found['flops_per_second'][0] == pytest.approx(rate)
    share = rate / result['peak_flops_per_second']
    assert found['share_of_peak'] == pytest.approx(share)
    assert found['peak_bytes'] > 0
  assert result['peak_flops_per_second'] > 1e9
  assert result['options']['dtype'] == 'float32'


def test_the_table_shows_them(report):
  result, text = report
  assert network.table(result) in text
  for name, found in result['contenders'].items():
    (line,) = [x for x in text.splitlines() if x.startswith(f'{name} ')]
    assert f' {found["seconds"][0]:.4f} (' in line
    assert f' {found["images_per_second"][0]:.2f}' in line
  assert ('PyTorch takes no part' in text) != HAS_TORCH
