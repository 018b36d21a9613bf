"""A network in one file, read where there is nothing but JAX."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from absl import app
from PIL import Image

from emanet_jax.data.datasets import get_dataset
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import MEAN, STD, create_model
from emanet_jax.tools import export
from tests import tiny
from tests.xla_flags import QUICK_PROGRAM

# Images [b, h, w], and the size that the authors would pad them to.
SIZES = {(1, 33, 41): (33, 41), (2, 40, 51): (41, 57), (1, 26, 70): (33, 73)}
STEP = 7


def normalized(image, size):
  batch, height, width, _ = image.shape
  x = np.zeros((batch, *size, 3), np.float32)
  x[:, :height, :width] = (image / 255 - np.array(MEAN)) / np.array(STD)
  return x


@pytest.fixture(scope='module', params=[True, False], ids=['align', 'not'])
def changes(request):
  # What is shipped, with a way of its own for each platform.
  return {
    'model__align_corners': request.param,
    'model__convolution': 'fast',
    'model__head__num_stages': 3 if request.param else 2,
  }


@pytest.fixture(scope='module')
def model(changes):
  return create_model(tiny.tiny_config(**changes).model, 7)


@pytest.fixture(scope='module')
def apply(model):
  return jax.jit(model.apply)


@pytest.fixture(scope='module')
def variables(model, apply, images):
  """Random, with a classifier that prefers no class."""
  variables = tiny.random_variables(model)
  x = normalized(images[0], (33, 41))
  bias = variables['params']['head']['classifier']['bias']
  bias -= np.asarray(apply(variables, x)).mean(axis=(0, 1, 2))
  return variables


@pytest.fixture(scope='module')
def workdir(changes, variables, tmp_path_factory):
  folder = tmp_path_factory.mktemp('export') / 'run'
  tiny.save_step(tiny.tiny_config(**changes), variables, folder, STEP)
  return folder


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(5)
  return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def start(program, folder, **environment):
  return subprocess.run(
    [sys.executable, *program],
    cwd=folder,
    env={**os.environ, **QUICK_PROGRAM, **environment},
    capture_output=True,
    text=True,
    timeout=240,
  )


@pytest.fixture(scope='module')
def exported(changes, workdir, images):
  """The folder with OUT, and what its user made of it."""
  folder = workdir.parent
  root = tiny.REPOSITORY
  flags = tiny.flags('', config=root / 'configs' / 'shapes.py', **changes)
  flags = [flag for flag in flags if not flag.startswith('--workdir')]
  program = ['-m', 'emanet_jax.tools.export', str(workdir), 'OUT', *flags]
  done = start(program, folder, PYTHONPATH=str(root))
  assert done.returncode == 0, done.stderr
  assert 'OUT.json written' in done.stderr

  Image.fromarray(images[0][0]).save(folder / 'photo.jpg', 'PNG')
  np.savez(folder / 'images.npz', *images)
  user = folder / 'user.py'
  user.write_text(loader() + USER)
  done = start([user], folder, PYTHONPATH='')
  assert done.returncode == 0, done.stderr
  return folder


def loader() -> str:
  """The ten lines of the tool's description."""
  text = export.__doc__.split('pillow):\n')[1].split('\nEach')[0]
  assert len(text.strip().splitlines()) <= 11
  return textwrap.dedent(text)


USER = """
import sys
images = np.load('images.npz').values()
np.savez('labels.npz', *[network(image) for image in images])
platforms = export.deserialize(bytearray(open('OUT', 'rb').read())).platforms
assert platforms == ('cpu', 'cuda', 'tpu'), platforms
for name in ('flax', 'emanet_jax', 'jaxtyping', 'ml_collections'):
  assert name not in sys.modules, name
"""


def test_labels_are_those_of_the_network(
  exported, model, apply, variables, images
):
  found = list(np.load(exported / 'labels.npz').values())
  assert len(found) == len(images)
  for image, labels, padded in zip(images, found, SIZES.values(), strict=True):
    size = padded if model.align_corners else image.shape[1:3]
    logits = np.asarray(apply(variables, normalized(image, size)))
    expected = logits.argmax(-1)[:, : image.shape[1], : image.shape[2]]
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert len(np.unique(expected)) > 4  # so that agreement means something
    assert (labels != expected).mean() < 1e-3  # ties


def test_what_lies_beside_it(exported):
  spec = get_dataset('shapes').SPEC
  about = json.loads((exported / 'OUT.json').read_text())
  assert about['classes'] == list(spec.classes)
  assert about['palette'] == [list(color) for color in spec.palette]
  assert (about['data_set'], about['step']) == ('shapes', STEP)
  assert about['platforms'] == ['cpu', 'cuda', 'tpu']
  assert about['versions']['jax'] == jax.__version__
  picture = Image.open(exported / 'labels.png')
  labels = np.load(exported / 'labels.npz')['arr_0'][0]
  np.testing.assert_array_equal(np.asarray(picture), labels)
  np.testing.assert_array_equal(
    np.asarray(picture.convert('RGB')), np.array(spec.palette)[labels]
  )


def test_nothing_is_overwritten(tmp_path):
  out = tmp_path / 'OUT'
  for path in (out, tmp_path / 'OUT.json'):
    path.write_text('mine')
    with pytest.raises(UserError, match=f'{path} exists'):
      export.export_trained(tiny.tiny_config(), 'none', out)
    assert tiny.hash_files(tmp_path).keys() == {path.name}
    assert path.read_text() == 'mine'
    path.unlink()


def test_what_is_missing_is_said(workdir, tmp_path):
  out = tmp_path / 'OUT'
  with pytest.raises(UserError, match='holds no checkpoint'):
    export.export_trained(tiny.tiny_config(), str(tmp_path / 'none'), out)
  other = tiny.tiny_config(model__head__num_bases=5)
  with pytest.raises(UserError, match=r'model\.head\.num_bases'):
    export.export_trained(other, str(workdir), out)
  with pytest.raises(app.UsageError, match='a workdir and a new file'):
    export.main(['export', str(workdir)])
  assert not list(tmp_path.iterdir())
