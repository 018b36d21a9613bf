"""An evaluator beside a run scores what the run itself would."""

import json
import signal

from emanet_jax.training.metric_writer import read_metrics
from tests import tiny

STEPS = 6


def test_each_step_is_scored_as_training_scores_it(tmp_path, tmp_path_factory):
  changes = {
    'data__data_dir': tiny.shared(tmp_path_factory, 'data'),
    'train__steps': STEPS,
    'train__checkpoint_every': 2,
    'train__keep_checkpoints': 9,
  }
  options = {'cache': tiny.shared(tmp_path_factory, 'compiled')}
  run = tmp_path / 'run'
  follower = [*tiny.flags(run, **changes), '--mode=evaluate', '--follow']
  # It begins before there is anything, is stopped, and goes on.
  first = tiny.start_main(follower, **options)
  code, output = tiny.run_main(
    tiny.flags(run, **changes, train__eval_every=0), **options
  )
  assert code == 0, output
  assert not (run / 'eval' / 'scores.json').exists()
  followed = run / 'eval' / 'followed'
  tiny.wait_until((followed / 'scores.json').exists, first)
  first.send_signal(signal.SIGTERM)
  code, _ = tiny.finish(first)
  assert code in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
  code, output = tiny.run_main(follower, **options)
  assert code == 0, output

  straight = tmp_path / 'straight'
  code, output = tiny.run_main(
    tiny.flags(straight, **changes, train__eval_every=2), **options
  )
  assert code == 0, output
  ours = {r['step']: r['mIoU'] for r in read_metrics(followed)}
  theirs = {
    r['step']: r['mIoU'] for r in read_metrics(straight) if r['split'] == 'eval'
  }
  assert ours == theirs
  assert [*ours] == [2, 4, 6]
  assert json.loads((followed / 'scores.json').read_text())['step'] == STEPS


def test_it_is_for_evaluation_of_all_steps(tmp_path):
  for wrong in ([], ['--mode=evaluate', '--checkpoint=3']):
    flags = [*tiny.flags(tmp_path / 'run'), '--follow', *wrong]
    code, output = tiny.run_main(flags)
    assert code == 1
    assert output.splitlines()[-1].startswith('error: --follow is for --mode=')
