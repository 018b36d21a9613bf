"""Files in, workdirs out, and back."""

import os
import sys

import numpy as np
import pytest
from absl import app, flags
from absl.testing import flagsaver
from flax import traverse_util
from safetensors import numpy as safetensors

from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.models.pytorch.weights import torch_from_variables
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import checkpoint
from emanet_jax.state import weights as state_weights
from emanet_jax.tools import convert_torch
from emanet_jax.tools.convert_torch import variables_from_torch
from tests import tiny
from tests.models.pytorch.torch_names import (
  authors_shapes,
  imagenet_shapes,
  weights,
)

BACKBONE = {'stage_sizes': (1, 1, 1, 1), 'width': 8, 'stem': (8, 8, 16)}
# The network of tests.tiny, for the seven classes of `shapes`.
HEAD = {'classes': 7, 'channels': 16, 'bases': 4, 'out_channels': 16}


@pytest.fixture(scope='module')
def tensors():
  return weights(authors_shapes(**BACKBONE, **HEAD))


@pytest.fixture
def run():
  """Returns a function (*paths, reverse=False) that is the command."""
  flags.FLAGS.mark_as_parsed()

  def run(*paths, reverse=False):
    with flagsaver.flagsaver(reverse=reverse):
      convert_torch.main(['convert_torch', *map(str, paths)])

  return run


@pytest.fixture
def source(tensors, tmp_path):
  path = tmp_path / 'emanet.safetensors'
  safetensors.save_file(tensors, path)
  return path


def assert_equal(got, expected):
  got, expected = (traverse_util.flatten_dict(x) for x in (got, expected))
  assert got.keys() == expected.keys()
  for path, value in expected.items():
    assert got[path].dtype == value.dtype
    np.testing.assert_array_equal(got[path], value, err_msg=path)


def test_a_workdir_is_written_and_nothing_overwritten(
  run, tensors, source, tmp_path, monkeypatch, caplog
):
  monkeypatch.setitem(sys.modules, 'torch', None)  # not needed
  folder = tmp_path / 'weights'
  with caplog.at_level('INFO', logger='absl'):
    run(source, folder)
  assert "'--config.model.backbone.stage_sizes=(1, 1, 1, 1)'" in caplog.text
  assert '--config.model.head.num_bases=4' in caplog.text
  variables, step = state_weights.load_weights(folder)
  assert_equal(variables, variables_from_torch(tensors))
  assert step == 0

  before = tiny.hash_files(folder)
  with pytest.raises(SystemExit, match=f'{folder} exists'):
    run(source, folder)
  assert tiny.hash_files(folder) == before
  with pytest.raises(SystemExit, match=f'{source} exists'):
    run(folder, source, reverse=True)
  with pytest.raises(app.UsageError, match='two paths'):
    run(source)


def test_the_workdir_scores_like_one_that_was_trained(
  run, tmp_path, tmp_path_factory
):
  data_dir = tiny.shared(tmp_path_factory, 'data')
  config = tiny.tiny_config(data__data_dir=str(data_dir))
  variables = tiny.random_variables(create_model(config.model, 7))
  source = tmp_path / 'emanet.safetensors'
  safetensors.save_file(torch_from_variables(variables, 0)[0], source)
  run(source, tmp_path / 'converted')
  tiny.save_step(config, variables, tmp_path / 'run', 3)
  got, expected = (
    evaluate.evaluate(config, str(tmp_path / name))
    for name in ('converted', 'run')
  )
  np.testing.assert_array_equal(got.confusion, expected.confusion)
  assert np.count_nonzero(expected.confusion) > 7
  config.model.head.num_bases = 8
  with pytest.raises(UserError, match=r'num_bases: checkpoint 4, now 8'):
    evaluate.evaluate(config, str(tmp_path / 'converted'))


def test_what_weights_do_not_serve_for_is_refused(run, source, tmp_path):
  run(source, tmp_path / 'whole')
  backbone = tmp_path / 'resnet.safetensors'
  safetensors.save_file(weights(imagenet_shapes(**BACKBONE)), backbone)
  run(backbone, tmp_path / 'backbone')
  config = tiny.tiny_config()
  for name, evaluating, message in (
    ('whole', False, r'holds weights, not a run .*init_from='),
    ('backbone', False, r'holds weights, not a run .*init_from='),
    ('backbone', True, r'a backbone alone, which predict nothing.*init_from='),
  ):
    with checkpoint.open_manager(tmp_path / name) as manager:
      with pytest.raises(UserError, match=message) as error:
        checkpoint.check_config(manager, config, evaluating=evaluating)
      assert str(tmp_path / name) in str(error.value)
  with checkpoint.open_manager(tmp_path / 'whole') as manager:
    checkpoint.check_config(manager, config, evaluating=True)


def test_there_and_back_without_pytorch(run, tensors, source, tmp_path):
  run(source, tmp_path / 'weights')
  run(tmp_path / 'weights', tmp_path / 'back.safetensors', reverse=True)
  back, _ = convert_torch.read(str(tmp_path / 'back.safetensors'))
  counters = {k: np.array(0) for k in tensors if k.endswith('_tracked')}
  assert_equal(back, {**tensors, **counters})


def test_a_step_of_a_run_goes_out_by_the_authors_names(run, tensors, tmp_path):
  torch = pytest.importorskip('torch')
  config = tiny.tiny_config()
  tiny.save_step(config, variables_from_torch(tensors), tmp_path / 'run', 7)
  step = tmp_path / 'run' / 'checkpoints' / '7'
  run(step, tmp_path / 'out.pth', reverse=True)
  content = torch.load(tmp_path / 'out.pth', weights_only=True)
  assert content.keys() == {'net', 'step'}
  assert content['step'] == 7
  # The counters of tests.models.pytorch.torch_names say 7, too.
  assert_equal({k: v.numpy() for k, v in content['net'].items()}, tensors)
  read, step = convert_torch.read(str(tmp_path / 'out.pth'))
  assert_equal(read, tensors)
  assert step == 7


def test_pth_files_are_read(tensors, tmp_path):
  torch = pytest.importorskip('torch')
  named = {name: torch.as_tensor(value) for name, value in tensors.items()}
  path = tmp_path / 'file.pth'
  for content, expected in (
    (named, 0),
    ({'net': named, 'step': 3}, 3),
    ({'state_dict': named, 'meta': {'CLASSES': ['a'], 'iter': 5}}, 0),
  ):
    torch.save(content, path)
    read, step = convert_torch.read(str(path))
    assert_equal(read, tensors)
    assert step == expected
  half = {'fc2.bias': torch.arange(3, dtype=torch.bfloat16) / 4}
  torch.save(half, path)
  read, _ = convert_torch.read(str(path))
  assert_equal(read, {'fc2.bias': np.float32([0, 0.25, 0.5])})


class Malicious:
  """Runs a command when it is unpickled."""

  def __init__(self, command):
    self._command = command

  def __reduce__(self):
    return os.system, (self._command,)


def test_a_pickle_never_runs(tensors, tmp_path):
  torch = pytest.importorskip('torch')
  named = {name: torch.as_tensor(value) for name, value in tensors.items()}
  path, trace = tmp_path / 'file.pth', tmp_path / 'trace'
  content = {'net': named, 'step': Malicious(f'touch {trace}')}
  for zipped in (True, False):  # PyTorch's two formats
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r'file\.pth: not a readable'):
      convert_torch.read(str(path))
    assert not trace.exists()
  torch.load(path, weights_only=False)
  assert trace.exists()  # as it would have


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_bad_files_are_told_by_their_path(suffix, tmp_path):
  if suffix == 'pth':
    pytest.importorskip('torch')
  path = tmp_path / f'broken.{suffix}'
  path.write_bytes(b'no weights' * 9)
  with pytest.raises(UserError, match=rf'broken\.{suffix}: not a readable'):
    convert_torch.read(str(path))
  with pytest.raises(UserError, match=rf'none\.{suffix}: no such file'):
    convert_torch.read(str(tmp_path / f'none.{suffix}'))


def test_pth_files_need_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'file.pth').touch()
  with pytest.raises(UserError, match=r'need PyTorch.*safetensors'):
    convert_torch.read(str(tmp_path / 'file.pth'))


def test_places_that_cannot_be_written_are_told(
  run, source, tmp_path, monkeypatch
):
  (tmp_path / 'file').write_text('')
  absent, taken = tmp_path / 'absent' / 'out.pth', tmp_path / 'file' / 'out'
  config = tiny.tiny_config()
  variables = tiny.random_variables(create_model(config.model, 7))
  tiny.save_step(config, variables, tmp_path / 'run', step=2)
  for paths, reverse, message in (
    ((tmp_path / 'run', absent), True, 'absent does not exist; make it'),
    ((tmp_path / 'run', tmp_path / 'file'), True, 'file exists; give a new'),
    ((tmp_path / 'run', taken), True, 'file is no folder; make it'),
    ((source, taken), False, 'file is a file; give another place'),
    ((source, tmp_path / 'file'), False, 'file exists; give a new'),
  ):
    with pytest.raises(SystemExit) as error:
      run(*paths, reverse=reverse)
    assert str(error.value).startswith('error: ')
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'emanet.safetensors',
    'file',
    'run',
  ]
  # A home is one wherever it stands.
  monkeypatch.setenv('HOME', str(tmp_path))
  run('~/emanet.safetensors', '~/weights')
  run('~/weights', '~/back.safetensors', reverse=True)
  assert (tmp_path / 'back.safetensors').is_file()
