"""A workdir of version 0.1 can be resumed, evaluated, predicted, exported."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import get_dataset
from emanet_jax.evaluation import evaluate
from emanet_jax.models.segmenter import create_model
from emanet_jax.prediction import predict
from emanet_jax.state import weights
from emanet_jax.tools import export
from emanet_jax.training import train
from tests import tiny

pytestmark = pytest.mark.usefixtures('keep_programs')
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'workdir_0_1.json'
SPEC = get_dataset('shapes').SPEC


def make_old(workdir, data_dir):
  """Gives a workdir's checkpoints the JSON that version 0.1 wrote."""
  golden = json.loads(GOLDEN.read_text())
  golden['config']['data']['data_dir'] = str(data_dir)
  for step in tiny.saved_steps(workdir):
    folder = workdir / 'checkpoints' / str(step)
    kept = json.loads((folder / 'config' / 'metadata').read_text())
    config = golden['config']
    config['train']['steps'] = kept['train']['steps']
    (folder / 'config' / 'metadata').write_text(json.dumps(config))
    data = json.loads((folder / 'data' / 'metadata').read_text())
    data['made_with'] = golden['made_with']
    (folder / 'data' / 'metadata').write_text(json.dumps(data))
    shutil.rmtree(folder / 'digest')  # there was none
    written = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
    del written['item_handlers']['digest']
    (folder / '_CHECKPOINT_METADATA').write_text(json.dumps(written))


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tiny.shared(tmp_path_factory, 'data')


@pytest.fixture(scope='module')
def config(data_dir):
  return tiny.tiny_config(
    data__data_dir=str(data_dir), train__steps=8, train__keep_checkpoints=5
  )


@pytest.fixture(scope='module')
def straight(config, tmp_path_factory):
  """A run of eight steps, checkpoints at four and eight."""
  workdir = tmp_path_factory.mktemp('straight')
  train.train(config, str(workdir))
  assert tiny.saved_steps(workdir) == [4, 8]
  return workdir


@pytest.fixture
def old(straight, data_dir, tmp_path):
  """The same, stopped after four steps, as version 0.1 would have left it."""
  shutil.copytree(straight, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '8')
  make_old(tmp_path / 'run', data_dir)
  return tmp_path / 'run'


def test_it_goes_on_bit_for_bit(config, straight, old):
  train.train(config, str(old))
  ours, theirs = (tiny.load_step(w, 8)['state'] for w in (old, straight))
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_it_is_evaluated_predicted_and_exported(
  config, old, tmp_path, commands
):
  evaluation = evaluate.evaluate(config, str(old))
  assert evaluation.num_images == SPEC.num_examples['val']
  scores = json.loads((old / 'eval' / 'scores.json').read_text())
  assert scores['step'] == 4
  assert scores['mIoU'] == evaluation.miou

  photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
  Image.fromarray(photo).save(tmp_path / 'photo.png')
  config = config.copy_and_resolve_references()
  config.predict.input = str(tmp_path / 'photo.png')
  predict.predict(config, str(old))
  label = np.asarray(Image.open(old / 'predict' / 'labels' / 'photo.png'))

  flags = tiny.flags(old, data__data_dir=config.data.data_dir)
  finished = commands.run(
    'emanet_jax.tools.export',
    *(str(old), str(tmp_path / 'out')),
    *(flag for flag in flags if not flag.startswith('--workdir')),
  )
  assert finished.returncode == 0, finished.stderr
  content = bytearray((tmp_path / 'out').read_bytes())
  exported = jax.export.deserialize(content).call(photo[None])
  variables, _ = weights.load_weights(old)
  model = create_model(config.model, SPEC.num_classes)
  expected = export.create_labeller(model, variables)(photo[None])
  assert np.mean(np.asarray(exported) == expected) > 0.999
  assert np.mean(label == np.asarray(expected)[0]) > 0.999
