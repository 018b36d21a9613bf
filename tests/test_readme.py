"""README's first command does what it says, in a folder of its own."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emanet_jax.training.metric_writer import read_metrics

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def test_what_the_readme_points_to_is_there():
  readme = (REPOSITORY / 'README.md').read_text()
  pictures = re.findall(r'!\[[^]]+\]\(([^)]+)\)', readme)
  files = re.findall(r'`((?:configs|tests|launch|emanet_jax)/[^`*]+)`', readme)
  assert pictures
  assert len(files) > 5
  missing = [p for p in pictures + files if not (REPOSITORY / p).exists()]
  assert not missing


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  readme = (REPOSITORY / 'README.md').read_text()
  command = re.search(r'^python -m emanet_jax\.main .*$', readme, re.M)[0]
  folder = tmp_path_factory.mktemp('readme')
  (folder / 'configs').symlink_to(REPOSITORY / 'configs')
  finished = subprocess.run(
    [sys.executable, *shlex.split(command)[1:]],
    cwd=folder,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(REPOSITORY),
    },
    capture_output=True,
    text=True,
    timeout=1800,
  )
  assert finished.returncode == 0, finished.stderr
  for word in ('loss', 'images/s', 'ETA', 'shape(s) compiled'):
    assert word in finished.stderr
  return folder / 'runs' / 'shapes'


def test_the_model_is_trained(workdir):
  scores = json.loads((workdir / 'eval' / 'scores.json').read_text())
  assert scores['num_images'] == 96
  assert scores['mIoU'] >= 0.80
  assert min(scores['per_class_IoU'].values()) > 0.5
  records = read_metrics(workdir)
  losses = [r['loss'] for r in records if r['split'] == 'train']
  assert losses[-1] < 0.3 * losses[0]
  assert records[-1]['split'] == 'eval'
  assert records[-1]['mIoU'] == pytest.approx(scores['mIoU'])


@pytest.mark.parametrize(
  'picture',
  [
    'curves.png',
    'eval/overlays.png',
    'eval/attention.png',
    'eval/confusion.png',
  ],
)
def test_there_is_something_to_look_at(workdir, picture):
  pixels = np.asarray(Image.open(workdir / picture).convert('RGB'))
  assert min(pixels.shape[:2]) > 300
  some = pixels[::5, ::5].reshape(-1, 3)  # all of them take half a minute
  assert len(np.unique(some, axis=0)) > 50
