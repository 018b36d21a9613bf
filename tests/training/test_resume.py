"""A run that is stopped, killed or refused ends as if nothing had happened."""

import json
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.runtime.preemption import STOPPED
from emanet_jax.state import checkpoint
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import start as first
from emanet_jax.training import train
from emanet_jax.training.metric_writer import read_metrics
from tests import tiny

pytestmark = pytest.mark.usefixtures('keep_programs')
STEPS, BATCH = 20, 4  # As in tiny.CHANGES.
KILLED_FROM = 12  # The last checkpoint before the kill.


@pytest.fixture(scope='module')
def start(tmp_path_factory):
  """Returns a function that starts `main` on shared data in a workdir."""
  data_dir = tiny.shared(tmp_path_factory, 'data')
  cache = tiny.shared(tmp_path_factory, 'compiled')

  def start(workdir, hold_at=None, **changes):
    workdir.parent.mkdir(exist_ok=True)
    hold = workdir.with_suffix('.hold')
    environment = {'TINY_BATCHES': workdir.with_suffix('.batches')}
    if hold_at is not None:
      hold.touch()
      environment |= {'TINY_HOLD': hold, 'TINY_HOLD_AT': hold_at * BATCH}
    changes = {'data__data_dir': data_dir, **changes}
    return tiny.start_main(
      tiny.flags(workdir, **changes), cache=cache, record=True, **environment
    )

  return start


@pytest.fixture(scope='module')
def straight(start, tmp_path_factory):
  """The workdir of a run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp('straight') / 'run'
  code, output = tiny.finish(start(workdir))
  assert code == 0, output
  return workdir


@pytest.fixture(scope='module')
def killed(start, tmp_path_factory):
  """A workdir whose process was killed beyond the checkpoint of step 12."""
  workdir = tmp_path_factory.mktemp('killed') / 'run'
  process = start(workdir, hold_at=KILLED_FROM + 2)
  tiny.wait_until(
    lambda: (
      KILLED_FROM in tiny.saved_steps(workdir)
      and _steps(workdir)[-1:] >= [KILLED_FROM + 1]
    ),
    process,
  )
  time.sleep(random.uniform(0, 0.5))
  process.kill()
  assert process.wait() == -signal.SIGKILL
  process.stdout.close()
  return workdir


@pytest.fixture
def stopped(killed, tmp_path):
  """A copy of the killed run, to go on from."""
  workdir = tmp_path / 'run'
  shutil.copytree(killed, workdir)
  shutil.copy(killed.with_suffix('.batches'), tmp_path / 'run.batches')
  return workdir


@pytest.fixture
def config(tmp_path_factory):
  """The configuration that `start` runs."""
  data_dir = tiny.shared(tmp_path_factory, 'data')
  return tiny.tiny_config(data__data_dir=str(data_dir))


def test_a_killed_run_ends_bit_for_bit_like_a_straight_one(
  start, straight, stopped
):
  assert max(tiny.saved_steps(stopped)) == KILLED_FROM
  code, output = tiny.finish(start(stopped))
  assert code == 0, output
  assert f'going on from step {KILLED_FROM}' in output
  assert f'step {KILLED_FROM}/{STEPS}' not in output
  _assert_same_end(straight, stopped)


def test_sigterm_saves_and_a_half_written_step_is_passed_over(
  start, straight, stopped
):
  process = start(stopped, hold_at=16)
  tiny.wait_until(lambda: 16 in _steps(stopped), process)
  process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  stopped.with_suffix('.hold').unlink()
  code, output = tiny.finish(process)
  assert code == STOPPED, output
  assert f'stopped and saved at step 17 of {STEPS}' in output
  assert max(tiny.saved_steps(stopped)) == 17

  # What a kill in the middle of a save leaves.
  folder = stopped / 'checkpoints'
  half = folder / '18.orbax-checkpoint-tmp'
  shutil.copytree(folder / '17', half)
  (half / 'commit_success.txt').unlink(missing_ok=True)
  for file in [p for p in half.rglob('*') if p.is_file()]:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  shutil.rmtree(half / 'data')
  assert tiny.load_step(stopped)['data']['position'] == 17 * BATCH

  # Threads and prefetching change no number.
  code, output = tiny.finish(
    start(stopped, data__num_threads=1, data__prefetch=1, eval__batch_size=4)
  )
  assert code == 0, output
  assert 'going on from step 17' in output
  assert not half.exists()
  _assert_same_end(straight, stopped)


@pytest.mark.parametrize(
  ('key', 'old', 'new'),
  [
    ('optimizer.learning_rate', 0.1, 0.2),
    ('model.head.num_bases', 4, 8),
    ('model.backbone.stage_sizes', '[1, 1, 1, 1]', (2, 1, 1, 1)),
    ('data.crop_size', 33, 49),
    ('train.batch_size', 4, 8),
    ('seed', 0, 1),
  ],
)
def test_another_configuration_is_refused(
  killed, config, monkeypatch, key, old, new
):
  def never(*unused, **also_unused):
    raise AssertionError('compiled before the configuration was checked')

  monkeypatch.setattr(train, 'compile_step', never)
  monkeypatch.setattr(first.train_state, 'create_state', never)
  config.update_from_flattened_dict({key: new})
  before = tiny.hash_files(killed)
  shown = list(new) if isinstance(new, tuple) else new
  with pytest.raises(UserError, match='another configuration') as caught:
    train.train(config, str(killed))
  assert f'{key}: checkpoint {old}, now {shown}' in str(caught.value)
  assert str(killed / 'checkpoints' / '12') in str(caught.value)
  assert tiny.hash_files(killed) == before


def test_refusal_is_exit_code_1_without_a_traceback(killed, config, commands):
  before = tiny.hash_files(killed)
  changes = {'data__data_dir': config.data.data_dir, 'optimizer__momentum': 0.5}
  done = commands.run('emanet_jax.main', *tiny.flags(killed, **changes))
  assert done.returncode == 1
  assert 'optimizer.momentum: checkpoint 0.9, now 0.5' in done.stderr
  assert 'Traceback' not in done.stderr
  assert 'compiled the training step' not in done.stderr
  assert tiny.hash_files(killed) == before


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('train.log_every', 7),
    ('train.checkpoint_every', 3),
    ('train.keep_checkpoints', 9),
    ('train.eval_every', 5),
    ('data.num_threads', 3),
    ('data.data_dir', 'elsewhere'),
    ('eval.batch_size', 1),
    ('init_from', 'weights'),
  ],
)
def test_keys_that_change_no_number_are_free(killed, config, key, value):
  config.update_from_flattened_dict({key: value})
  manager = checkpoint.open_manager(killed)
  checkpoint.check_config(manager, config)
  config.seed = 1  # The same call does refuse.
  with pytest.raises(UserError, match=r'seed: checkpoint 0, now 1'):
    checkpoint.check_config(manager, config)


def test_divergence_stops_and_leaves_the_step_before(start, tmp_path):
  workdir = tmp_path / 'run'
  code, output = tiny.finish(
    start(workdir, optimizer__learning_rate=1e6, train__checkpoint_every=1)
  )
  assert code == 1
  assert 'training diverged at step' in output
  assert 'Traceback' not in output
  diverged = int(output.split('training diverged at step ')[1].split(':')[0])
  assert 1 < diverged < STEPS
  assert tiny.saved_steps(workdir)[-1] == diverged - 1
  state = tiny.load_step(workdir)['state']
  assert state['step'] == diverged - 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  assert _steps(workdir) == list(range(1, diverged))


def test_an_evaluation_that_was_cut_off_is_made_after_all(
  config, tmp_path, monkeypatch
):
  config.update_from_flattened_dict(
    {'train.steps': 2, 'train.eval_every': 1, 'train.batch_size': 4}
  )
  config.eval.window, config.eval.window_stride = 129, 64
  run_split, calls = evaluate.run_split, []

  def cut_off(*arguments, **options):
    calls.append(1)
    if len(calls) in (1, 3):  # The first time at each of the two steps.
      signal.raise_signal(signal.SIGTERM)
    return run_split(*arguments, **options)

  monkeypatch.setattr(evaluate, 'run_split', cut_off)
  for _ in range(2):
    with pytest.raises(SystemExit) as stopped:
      train.train(config, str(tmp_path))
    assert stopped.value.code == STOPPED
  train.train(config, str(tmp_path))
  records = [(r['split'], r['step']) for r in read_metrics(tmp_path)]
  expected = [('train', 1), ('eval', 1), ('train', 2), ('eval', 2)]
  assert records == expected
  # In the folder that --mode=evaluate has for such views, too.
  scores = tmp_path / 'eval' / 'window_129_64' / 'scores.json'
  scores = json.loads(scores.read_text())
  assert (scores['window'], scores['stride']) == (129, 64)


def test_other_data_are_refused(killed, config):
  manager = checkpoint.open_manager(killed)
  step = manager.latest_step()
  assert checkpoint.restore_variables(manager, _device()).keys() >= {'params'}
  saved = manager.item_metadata(step)['state'].tree
  abstract = checkpoint.abstract_like(
    saved, jax.tree.map(lambda _: _device(), saved)
  )
  iterator = pipeline.train_iterator(
    tiny.open_dataset(config.data), config.data, batch_size=BATCH, seed=0
  )
  iterator._made_with['num_examples'] = 511
  with pytest.raises(UserError, match='num_examples: then 512, now 511') as got:
    checkpoint.restore(manager, TrainState(**abstract), iterator)
  assert str(killed / 'checkpoints') in str(got.value)
  assert iterator.get_state()['position'] == 0


def _device():
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def test_a_finished_run_is_only_evaluated_again(start, straight):
  before = tiny.hash_files(straight / 'checkpoints')
  records = read_metrics(straight)
  batches = _batches(straight)
  (straight / 'eval' / 'scores.json').unlink()
  code, output = tiny.finish(start(straight))
  assert code == 0, output
  assert 'compiled the training step' not in output
  assert (straight / 'eval' / 'scores.json').is_file()
  assert tiny.hash_files(straight / 'checkpoints') == before
  assert read_metrics(straight) == records
  assert _batches(straight) == batches


def _steps(workdir):
  """Steps of the training records so far."""
  if not (workdir / 'metrics.jsonl').exists():
    return []
  return [r['step'] for r in read_metrics(workdir) if r['split'] == 'train']


def _batches(workdir):
  """Position to the hashes of all batches ever made there."""
  found = {}
  for line in workdir.with_suffix('.batches').read_text().splitlines():
    position, value = line.split()
    found.setdefault(int(position), set()).add(value)
  return found


def _assert_same_end(straight, other):
  expected, found = tiny.load_step(straight), tiny.load_step(other)
  assert expected['data'] == found['data']
  assert expected['data']['position'] == STEPS * BATCH
  assert expected['data']['made_with']['num_examples'] == 512
  assert tiny.hash_tree(expected['state']) == tiny.hash_tree(found['state'])

  batches = _batches(straight)
  assert sorted(batches) == list(range(0, STEPS * BATCH, BATCH))
  assert len(set().union(*batches.values())) == STEPS
  assert _batches(other) == batches

  def figures(workdir):
    keys = ('step', 'split', 'loss', 'grad_norm', 'learning_rate', 'mIoU')
    return [[r.get(k) for k in keys] for r in read_metrics(workdir)]

  assert _steps(other) == list(range(1, STEPS + 1))
  assert figures(other) == figures(straight)
