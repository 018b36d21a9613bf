"""Places that cannot be written are told, in one line, as soon as it shows."""

import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from emanet_jax.data.preparation import prepare
from emanet_jax.errors import UserError
from emanet_jax.runtime import places, startup
from emanet_jax.runtime.ownership import own
from emanet_jax.state import background_saves, checkpoint, weights
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import train
from tests import tiny

pytestmark = pytest.mark.usefixtures('keep_programs')
FULL = ValueError('RESOURCE_EXHAUSTED: Failed writing\n' + 99 * 'a trace\n')


def save(manager, step):
  state = TrainState(jnp.int32(step), {'w': jnp.ones(9)}, {}, {})
  checkpoint.save(manager, state, {'position': step}, tiny.tiny_config())


@pytest.mark.parametrize(
  ('method', 'use'),
  [
    ('check_for_errors', background_saves.check),
    ('wait_until_finished', background_saves.finish),
    ('save', lambda manager: save(manager, 6)),
  ],
)
def test_a_save_that_is_lost_is_told_with_those_that_are_not(
  method, use, tmp_path
):
  with pytest.raises(UserError) as error:
    lose(tmp_path, method, use)
  told = str(error.value)
  assert len(told.splitlines()) == 1
  assert len(told) < 600
  assert f'could not be written to {tmp_path}/checkpoints (RESOURCE_' in told
  assert 'Complete steps are there: 2, 4.' in told


def lose(workdir, method, use):
  """Closing fails for the same reason, which must not be told instead."""
  manager = checkpoint.open_manager(workdir, 9)
  with background_saves.closing(manager):
    for step in (2, 4):
      save(manager, step)
    manager.wait_until_finished()
    with (
      mock.patch.object(manager, method, side_effect=FULL),
      mock.patch.object(manager, 'close', side_effect=FULL),
    ):
      use(manager)


@pytest.mark.parametrize(
  'url', ['gs:///run', 's3://b/c', 'gs:/bucket/run', 'https://a.org/b']
)
def test_urls_make_no_folders_of_strange_names(url, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  jax.config.update('jax_compilation_cache_dir', None)
  for use in (
    places.check_folder,
    places.check_new_file,
    checkpoint.open_manager,
    lambda path: checkpoint.open_manager(path, 3),
    lambda path: own(path).__enter__(),
    lambda path: prepare.prepare('shapes', '', path),
    lambda path: weights.save_weights(path, {}, tiny.tiny_config(), 1),
    startup.cache_compilations,
  ):
    with pytest.raises(UserError, match='is no path of this machine: mount'):
      use(url)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('workdir', 'changes'),
  [
    ('s3://b/run', {}),
    ('run', {'init_from': 's3://b/weights'}),
    ('run', {'data__data_dir': 's3://b/data'}),
    ('run', {'data__manual_dir': 'gs://b/published'}),
  ],
)
def test_a_run_with_an_url_makes_nothing(
  workdir, changes, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  config = tiny.tiny_config(model__dtype='float32', **changes)
  with pytest.raises(UserError, match='is no path of this machine: mount'):
    train.train(config, workdir)
  assert not list(tmp_path.iterdir())


def test_places_are_looked_at_before_anything_is_made(tmp_path):
  (tmp_path / 'file').write_text('')
  for use in (places.check_folder, lambda path: own(path).__enter__()):
    with pytest.raises(UserError, match='file is a file; give another place'):
      use(tmp_path / 'file' / 'run')
  places.check_folder(tmp_path / 'new' / 'run')
  places.check_new_file(tmp_path / 'new.txt')
  with pytest.raises(UserError, match='new does not exist; make it'):
    places.check_new_file(tmp_path / 'new' / 'a.txt')
  assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ['file']
