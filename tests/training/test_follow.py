"""An evaluator beside a run scores each step as evaluation does."""

import json
import shutil

import pytest

from emanet_jax.errors import UserError
from emanet_jax.evaluation import evaluate
from emanet_jax.models.segmenter import create_model
from emanet_jax.state import checkpoint
from emanet_jax.training import follow, train
from emanet_jax.training.metric_writer import open_writer, read_metrics
from tests import tiny

pytestmark = pytest.mark.usefixtures('keep_programs')


class Stopped(Exception):
  """What a signal does to a process that waits."""


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
  """A configuration and a function that saves a step of its run."""
  data_dir = tiny.shared(tmp_path_factory, 'data')
  config = tiny.tiny_config(data__data_dir=str(data_dir), train__steps=6)
  classes = tiny.open_dataset(config.data).spec.classes
  variables = tiny.random_variables(create_model(config.model, len(classes)))

  def save(step):
    variables['params']['head']['classifier']['bias'] = (
      variables['params']['head']['classifier']['bias'] * step
    )
    tiny.save_step(config, variables, tmp_path / 'run', step, classes)

  return config, tmp_path / 'run', save


def test_each_step_is_scored_once_until_the_last_is(run, monkeypatch):
  config, workdir, save = run
  # What happens while it waits, in turn.
  meanwhile = iter([lambda: save(2), lambda: save(4), None, lambda: save(6)])

  def wait(_):
    happens = next(meanwhile)
    if happens is None:
      raise Stopped
    happens()

  monkeypatch.setattr(follow.time, 'sleep', wait)
  with pytest.raises(Stopped):
    follow.follow(config, str(workdir))
  folder = workdir / 'eval' / 'followed'
  assert [r['step'] for r in read_metrics(folder)] == [2, 4]

  scores = follow.follow(config, str(workdir))
  assert [*scores] == [2, 4, 6]
  records = {r['step']: r['mIoU'] for r in read_metrics(folder)}
  assert records == scores
  assert len(set(scores.values())) == 3
  report = json.loads((folder / 'scores.json').read_text())
  assert (report['step'], report['mIoU']) == (6, scores[6])
  assert evaluate.evaluate(config, str(workdir), 4).miou == scores[4]
  assert evaluate.evaluate(config, str(workdir)).miou == scores[6]
  assert follow.follow(config, str(workdir)) == scores  # nothing is left to do


def test_steps_that_are_gone_or_damaged_are_passed_over(
  run, monkeypatch, caplog
):
  config, workdir, save = run
  for step in (2, 4, 6):
    save(step)
  (workdir / 'checkpoints' / '4' / 'state' / '_METADATA').unlink()
  open_step = follow.open_for_inference

  def open_late(config, workdir, step):
    if step == 2:
      shutil.rmtree(workdir + '/checkpoints/2')
    return open_step(config, workdir, step)

  monkeypatch.setattr(follow, 'open_for_inference', open_late)
  scores = follow.follow(config, str(workdir))
  assert [*scores] == [4, 6]
  assert scores[4] != scores[4]
  assert 'checkpoints/4 is damaged' in caplog.text


def test_the_best_by_a_followers_scores_stays(run, monkeypatch, caplog):
  config, workdir, _ = run
  config.update_from_flattened_dict(
    {
      'train.eval_every': 0,
      'train.checkpoint_every': 1,
      'train.keep_checkpoints': 1,
    }
  )
  save, scores = checkpoint.save, {1: 0.2, 2: 0.6, 3: 0.4}

  def save_and_be_followed(manager, state, *args):
    save(manager, state, *args)
    step = int(state.step)
    if step in scores:
      folder = follow.scores_folder(workdir)
      with open_writer(folder, None, writes=True) as writer:
        writer.write(step, 'eval', {'mIoU': scores[step]})

  monkeypatch.setattr(checkpoint, 'save', save_and_be_followed)
  with caplog.at_level('INFO', logger='absl'):
    train.train(config, str(workdir))
  assert tiny.saved_steps(workdir) == [2, 6]
  assert 'best so far: mIoU 60.00, step 2 (as followed)' in caplog.text


def test_it_is_for_evaluation_of_all_steps(tmp_path, commands):
  for wrong in ([], ['--mode=evaluate', '--checkpoint=3']):
    flags = [*tiny.flags(tmp_path / 'run'), '--follow', *wrong]
    done = commands.run('emanet_jax.main', *flags)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert told.startswith('error: --follow is for --mode=')


def test_two_do_not_follow_one_run(run):
  config, workdir, _ = run
  with (
    follow.own(workdir / 'eval' / 'followed'),
    pytest.raises(UserError, match='followed is in use by'),
  ):
    follow.follow(config, str(workdir))
