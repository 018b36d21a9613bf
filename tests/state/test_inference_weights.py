"""What a workdir's users leave open is as in its checkpoint."""

import jax
import pytest

from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import compute_dtype, create_model
from emanet_jax.state.inference_weights import open_for_inference
from emanet_jax.training.start import settle_dtype
from tests import tiny


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Steps 3 and 7 of a run in bfloat16, of data in R."""
  folder = tmp_path_factory.mktemp('run')
  config = tiny.tiny_config(model__dtype='bfloat16', data__data_dir='R')
  variables = tiny.random_variables(create_model(config.model, 7))
  for step in (3, 7):
    tiny.save_step(config, variables, folder, step)
  return folder


def test_the_data_are_those_of_the_checkpoint(workdir):
  trained = open_for_inference(tiny.tiny_config(), str(workdir))
  assert trained.config.data.data_dir == 'R'
  assert (trained.step, trained.split) == (7, 'val')
  given = tiny.tiny_config(data__data_dir='other')
  assert open_for_inference(given, str(workdir)).config.data.data_dir == 'other'
  assert given.model.dtype == 'auto'  # it is left as it was


def test_any_step_can_be_opened(workdir):
  trained = open_for_inference(tiny.tiny_config(), str(workdir), 3)
  assert (trained.step, trained.path.name) == (3, '3')
  with pytest.raises(UserError, match=r'has no step 4 .*; it has 3, 7'):
    open_for_inference(tiny.tiny_config(), str(workdir), 4)


def test_auto_is_as_is_good_for_the_machine(workdir, monkeypatch):
  config = tiny.tiny_config()
  assert config.model.dtype == 'auto'
  trained = open_for_inference(config, str(workdir))
  assert trained.config.model.dtype == 'float32'
  assert create_model(config.model, 7).dtype == 'float32'
  for platform in ('gpu', 'tpu'):
    monkeypatch.setattr(jax, 'default_backend', lambda name=platform: name)
    assert compute_dtype('auto') == 'bfloat16'
    assert create_model(config.model, 7).dtype == 'bfloat16'
    trained = open_for_inference(config, str(workdir))
    assert trained.config.model.dtype == 'bfloat16'
  assert compute_dtype('float32') == 'float32'


def test_a_run_that_goes_on_keeps_its_dtype(workdir, tmp_path):
  config = tiny.tiny_config()
  settled = settle_dtype(config, str(workdir))
  assert settled.model.dtype == 'bfloat16'
  assert settle_dtype(config, str(tmp_path)).model.dtype == 'float32'
  config.model.dtype = 'float32'  # and is refused, as another configuration
  assert settle_dtype(config, str(workdir)).model.dtype == 'float32'
