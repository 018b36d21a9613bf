"""Damage to a checkpoint is noticed, and named; nothing else is lost by it."""

import collections
import errno
import json
import pathlib
import shutil
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import create_model
from emanet_jax.runtime import sharding
from emanet_jax.state import checkpoint, digest, integrity
from emanet_jax.state.inference_weights import open_for_inference
from emanet_jax.state.train_state import TrainState, create_state
from emanet_jax.training import start
from emanet_jax.training.optimizers import create_optimizer
from tests import tiny


def small_state(seed=0):
  rng = np.random.default_rng(seed)
  params = {
    'head': {'kernel': jnp.asarray(rng.normal(size=(3, 40, 50)), 'float32')},
    'backbone': {'half': jnp.asarray(rng.normal(size=99), 'bfloat16')},
  }
  rest = {'bases': {'mu': jnp.asarray(rng.normal(size=(4, 8)), 'float32')}}
  return TrainState(jnp.int32(60), params, rest, {'momentum': jnp.ones(77)})


def save_small(folder):
  """Makes a run's only step, 60, of a small state."""
  state = small_state()
  with checkpoint.open_manager(folder, 1) as manager:
    position = {'position': 240, 'made_with': {'seed': 0}}
    checkpoint.save(manager, state, position, tiny.tiny_config())
  return folder


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  return save_small(tmp_path_factory.mktemp('saved'))


def restored(workdir):
  """The state and the input's position, by all that training reads."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  state = small_state()
  abstract = checkpoint.abstract_like(
    state, jax.tree.map(lambda _: device, state)
  )
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  with checkpoint.open_manager(workdir, 1) as manager:
    checkpoint.check_config(manager, tiny.tiny_config())
    state = checkpoint.restore(manager, abstract, iterator)
  return state, iterator.set_state.call_args.args[0]


def files(workdir):
  folder = workdir / 'checkpoints' / '60'
  return sorted(p for p in folder.rglob('*') if p.is_file())


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8 % len(content)] ^= 1 << bit % 8
  path.write_bytes(content)


def halve(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
  **{f'flip {i}': lambda path, i=i: flip(path, 7919 * i + 3) for i in range(6)},
  'truncate': halve,
  'empty': lambda path: path.write_bytes(b''),
  'delete': pathlib.Path.unlink,
}


def test_what_is_sound_is_restored(saved):
  state, position = restored(saved)
  assert position == {'position': 240, 'made_with': {'seed': 0}}
  assert tiny.hash_tree(state) == tiny.hash_tree(small_state())


def damaged_copies(saved, tmp_path):
  """Yields each damage to each file: its name, how it ended, whether well.

  'noticed': in one line that names the step; 'harmless': what is restored is
  what was saved, to the bit. Whoever only reads moves nothing.
  """
  whole = tiny.hash_tree(restored(saved)[0])
  for number, path in enumerate(files(saved)):
    for name, damage in DAMAGES.items():
      if name.startswith('flip') and not path.stat().st_size:
        continue
      workdir = tmp_path / f'{number} {name}'
      shutil.copytree(saved, workdir)
      damage(workdir / path.relative_to(saved))
      before = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
      try:
        state, position = restored(workdir)
      except integrity.DamagedError as error:
        end, told = 'noticed', str(error)
        well = f'{workdir}/checkpoints/60 is damaged: ' in told
        well &= len(told.splitlines()) == 1
      else:
        end = 'harmless'
        well = tiny.hash_tree(state) == whole and position['position'] == 240
      after = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
      yield name, end, well and after == before
      shutil.rmtree(workdir)


def test_every_damage_to_every_file_is_noticed_or_harmless(saved, tmp_path):
  table = collections.Counter()
  for name, end, well in damaged_copies(saved, tmp_path):
    assert well, (name, end)
    table[name.split()[0], end] += 1
  assert sum(table.values()) > 80
  # Harmless are those to what Orbax keeps for its own information.
  assert table['flip', 'noticed'] > 40
  assert table['delete', 'noticed'] >= 8


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'uint8'])
def test_one_bit_or_two_numbers_exchanged_change_a_digest(dtype):
  rng = np.random.default_rng(0)
  x = np.asarray(jnp.asarray(rng.integers(0, 200, (7, 30)), dtype))
  (whole,) = digest.of_arrays({'x': jnp.asarray(x)}).values()
  assert (whole,) == tuple(digest.of_arrays({'x': jnp.asarray(x)}).values())
  found = {whole}
  for number in rng.choice(x.nbytes * 8, 40, replace=False):
    content = bytearray(x.tobytes())
    content[number // 8] ^= 1 << number % 8
    other = np.frombuffer(bytes(content), x.dtype).reshape(x.shape)
    found |= set(digest.of_arrays({'x': jnp.asarray(other)}).values())
  turned = x.copy()
  turned[0, :2] = turned[0, 1::-1] if x[0, 0] != x[0, 1] else turned[0, :2] + 1
  found |= set(digest.of_arrays({'x': jnp.asarray(turned)}).values())
  assert len(found) == 42


def test_a_digest_does_not_depend_on_the_devices():
  tree = {'x': jnp.arange(64.0).reshape(8, 8), 'y': [jnp.ones(8)]}
  expected = digest.of_arrays(tree)
  assert list(expected) == ['x', 'y/0']
  mesh = sharding.create_mesh(jax.devices()[:4])
  for spread in (sharding.replicated(mesh), sharding.batch_sharding(mesh)):
    assert digest.of_arrays(jax.device_put(tree, spread)) == expected


def two_steps(config, workdir):
  """A run's steps 4 and 8 as training saves them; the model, its optimizer."""
  model = create_model(config.model, 7)
  tx, _ = create_optimizer(config.optimizer, 9, model.frozen_params())
  shapes = jax.eval_shape(
    lambda key: create_state(model, tx, key), jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  state = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes
  )
  with checkpoint.open_manager(workdir, 3) as manager:
    for step in (4, 8):
      state = state.replace(step=jnp.int32(step))
      checkpoint.save(manager, state, {'position': step}, config)
  return model, tx


def use(config, workdir):
  """As evaluation, prediction and export do."""
  trained = open_for_inference(config, str(workdir))
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return checkpoint.restore_variables(trained.manager, device, trained.step)


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
@pytest.mark.parametrize(
  'damage',
  ['numbers', 'empty', 'incomplete', 'config'],
)
def test_training_goes_on_from_the_newest_intact_step(
  damage, optimizer, tmp_path, caplog
):
  config = tiny.tiny_config(optimizer__name=optimizer, model__dtype='float32')
  model, tx = two_steps(config, tmp_path)
  newest = tmp_path / 'checkpoints' / '8'
  before = tiny.hash_files(tmp_path / 'checkpoints' / '4')
  if damage == 'numbers':
    for path in (newest / 'state').rglob('d/*'):
      flip(path, 8 * (path.stat().st_size // 2))
  elif damage == 'empty':
    shutil.rmtree(newest)
    newest.mkdir()
  elif damage == 'incomplete':
    shutil.rmtree(newest / 'data')
  else:
    (newest / 'config' / 'metadata').write_text('{')
  spoiled = tiny.hash_files(newest)
  with pytest.raises(integrity.DamagedError, match='8 is damaged'):
    use(config, tmp_path)
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  mesh = sharding.create_mesh(jax.devices()[:1])
  with checkpoint.open_manager(tmp_path, 3) as manager:
    state = start.first_or_latest(config, manager, model, tx, iterator, mesh)
    assert manager.all_steps() == [4]
  assert int(state.step) == 4
  iterator.set_state.assert_called_with({'position': 4})
  assert 'is damaged' in caplog.text
  assert tiny.hash_files(tmp_path / 'checkpoints' / '8.damaged') == spoiled
  assert tiny.hash_files(tmp_path / 'checkpoints' / '4') == before


@pytest.mark.parametrize(
  'error',
  [
    OSError(errno.ESTALE, 'Stale file handle'),
    OSError(errno.EIO, 'Input/output error'),
    PermissionError(errno.EACCES, 'Permission denied'),
    MemoryError(),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
    ValueError('UNAVAILABLE: Error reading a file\nat length'),
  ],
  ids=lambda e: type(e).__name__,
)
def test_what_says_nothing_about_a_step_does_not_set_it_aside(error, tmp_path):
  config = tiny.tiny_config(model__dtype='float32')
  model, tx = two_steps(config, tmp_path)
  before = tiny.hash_files(tmp_path)
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  mesh = sharding.create_mesh(jax.devices()[:1])
  with (
    checkpoint.open_manager(tmp_path, 3) as manager,
    mock.patch.object(manager, 'restore', side_effect=error),
    pytest.raises(UserError, match=r'8 cannot be read: .*left as it is') as e,
  ):
    start.first_or_latest(config, manager, model, tx, iterator, mesh)
  assert not isinstance(e.value, integrity.DamagedError)
  assert len(str(e.value).splitlines()) == 1
  assert tiny.hash_files(tmp_path) == before


def test_with_no_intact_step_nothing_is_begun(saved, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(saved, workdir)
  (workdir / 'checkpoints' / '60' / 'state' / '_METADATA').unlink()
  before = tiny.hash_files(workdir)
  config = tiny.tiny_config()
  model = create_model(config.model, 7)
  tx, _ = create_optimizer(config.optimizer, 9, model.frozen_params())
  iterator = mock.create_autospec(pipeline.TrainIterator, instance=True)
  mesh = sharding.create_mesh(jax.devices()[:1])
  with (
    checkpoint.open_manager(workdir, 3) as manager,
    pytest.raises(UserError, match='60 is damaged'),
  ):
    start.first_or_latest(config, manager, model, tx, iterator, mesh)
  assert tiny.hash_files(workdir) == before


def test_checkpoints_without_a_digest_are_accepted_and_told(
  saved, tmp_path, caplog
):
  shutil.copytree(saved, tmp_path / 'run')
  step = tmp_path / 'run' / 'checkpoints' / '60'
  shutil.rmtree(step / 'digest')
  metadata = json.loads((step / '_CHECKPOINT_METADATA').read_text())
  del metadata['item_handlers']['digest']
  (step / '_CHECKPOINT_METADATA').write_text(json.dumps(metadata))
  with caplog.at_level('INFO', logger='absl'):
    state, _ = restored(tmp_path / 'run')
  assert tiny.hash_tree(state) == tiny.hash_tree(small_state())
  assert 'is of an older version: it has no digest' in caplog.text


def measure() -> None:
  """Prints what digests of ResNet-50's training state cost here."""
  from emanet_jax.config import default_config

  config = default_config()
  config.model.backbone.depth = 50
  model = create_model(config.model, 21)
  tx, _ = create_optimizer(config.optimizer, 9, model.frozen_params())
  shapes = jax.eval_shape(
    lambda key: create_state(model, tx, key), jax.random.key(0)
  )
  state = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
  numbers = sum(x.size for x in jax.tree.leaves(state))
  for turn in ('first', 'second', 'third'):
    begin = time.monotonic()
    digest.of_arrays(state)
    print(f'{turn}: {time.monotonic() - begin:.2f} s, {numbers / 1e6:.1f} M')


if __name__ == '__main__':
  measure()
