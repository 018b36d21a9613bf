"""What runs survive: python -m tests.faults.harness [--kills=20]

Kills real runs of the tiny network in steps, inside saves and inside
evaluations, stops them by each signal, starts them again until they end, and
holds each against a run that nothing disturbed: the same weights, the same
batches and the same scores, bit for bit, with no more lost than the steps since
the last save, or since the one before where a kill cut that off. Then damages
every file of a checkpoint. Prints a table; exit code 1 where something did not
survive. About ten minutes on two cores.
"""

import argparse
import collections
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

from emanet_jax.runtime.preemption import STOPPED
from emanet_jax.training.metric_writer import read_metrics
from tests import tiny
from tests.faults import test_checkpoints

_EVERY = 3  # steps between saves
_NOTICES = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_CHANGES = {
  'train__checkpoint_every': _EVERY,
  'train__eval_every': 7,
  'train__steps': 21,
}


class Run:
  """A workdir, and the process that trains in it."""

  def __init__(self, folder: pathlib.Path, name: str):
    self.workdir = folder / name
    self._phase = folder / f'{name}.evaluating'
    self._batches = folder / f'{name}.batches'
    self._environment = {
      'TINY_BATCHES': self._batches,
      'TINY_EVALUATING': self._phase,
    }
    self._flags = tiny.flags(
      self.workdir, data__data_dir=folder / 'data', **_CHANGES
    )
    self._cache = folder / 'compiled'

  def start(self):
    self._phase.unlink(missing_ok=True)
    self._read_before = self._num_batches()
    return tiny.start_main(
      self._flags, cache=self._cache, record=True, **self._environment
    )

  def steps(self) -> set[int]:
    """That were made and told of."""
    if not (self.workdir / 'metrics.jsonl').exists():
      return set()
    return {r['step'] for r in read_metrics(self.workdir)}

  def in_save(self) -> bool:
    if self._num_batches() == self._read_before:
      return False  # what is there is left of the run before
    return any((self.workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp'))

  def in_evaluation(self) -> bool:
    return self._phase.exists()

  def saved(self) -> list[int]:
    return tiny.saved_steps(self.workdir)

  def end(self) -> tuple:
    """All that must not depend on what happened on the way."""
    lines = self._batches.read_text().splitlines()
    batches = dict(line.split() for line in lines)
    metrics = [
      {k: r[k] for k in ('split', 'step', 'loss', 'mIoU') if k in r}
      for r in read_metrics(self.workdir)
    ]
    return tiny.hash_tree(tiny.load_step(self.workdir)), batches, metrics

  def _num_batches(self) -> int:
    if not self._batches.exists():
      return 0
    return self._batches.read_text().count('\n')


def _disturb(run: Run, where: str, number: signal.Signals) -> str:
  """Starts a run, and sends it a signal there; what was lost too much."""
  before, began = max(run.saved(), default=0), run.steps()
  process = run.start()
  conditions = {
    'step': lambda: run.steps() - began,
    'save': run.in_save,
    'evaluation': run.in_evaluation,
  }
  tiny.wait_until(conditions[where], process, timeout=900)
  time.sleep(random.uniform(0, 0.05 if where == 'save' else 0.3))
  reached = max(run.steps(), default=0)
  process.send_signal(number)
  code, output = tiny.finish(process, timeout=900)
  going_on = re.search(r'going on from step (\d+)', output)
  assert int(going_on[1] if going_on else 0) == before, output
  if number == signal.SIGKILL:
    assert code == -number, f'ended with {code}: {output}'
    # The last save begun before this step may be under way; the next one would
    # have waited for it, as it did for the one before, which is complete.
    reached = (reached - 1) // _EVERY * _EVERY - _EVERY
  else:
    assert code == STOPPED, f'{number.name}: ended with {code}: {output}'
  kept = max(run.saved(), default=0)
  return f'step {kept} is kept, not {reached}' if kept < reached else ''


def _kill_and_compare(folder: pathlib.Path, kills: int):
  """Yields what was done, and what was wrong afterwards."""
  straight = Run(folder, 'straight')
  code, output = tiny.finish(straight.start(), timeout=900)
  assert code == 0, output
  wheres = ['step', 'save', 'evaluation']
  faults = [(wheres[i % 3], signal.SIGKILL) for i in range(kills)]
  faults += [(where, number) for where in wheres for number in _NOTICES]
  random.shuffle(faults)
  for start in range(0, len(faults), 5):
    run, done = Run(folder, f'run_{start}'), []
    for where, number in faults[start : start + 5]:
      if max(run.saved(), default=0) == _CHANGES['train__steps']:
        run = Run(folder, f'{run.workdir.name}_again')
      done.append((f'{number.name} in a {where}', _disturb(run, where, number)))
    code, output = tiny.finish(run.start(), timeout=900)
    wrong = '' if code == 0 else f'ended with {code}: {output}'
    if not wrong and run.end() != straight.end():
      wrong = 'another end'
    for fault, lost in done:
      yield fault, lost or wrong


def _damage(folder: pathlib.Path):
  """Yields each damage to each file of a checkpoint likewise."""
  saved = test_checkpoints.save_small(folder / 'saved')
  for name, _, survived in test_checkpoints.damaged_copies(saved, folder):
    wrong = '' if survived else name
    yield f'{name.split()[0]} a file of a checkpoint', wrong


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  options = parser.parse_args()
  random.seed(options.seed)
  for number in _NOTICES:  # shells in the background ignore some, as nohup does
    signal.signal(number, signal.SIG_DFL)
  tried, survived = collections.Counter(), collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for results in (_kill_and_compare(folder, options.kills), _damage(folder)):
      for fault, wrong in results:
        tried[fault] += 1
        survived[fault] += not wrong
        shown = f'\nLOST: {fault}: {wrong}\n' if wrong else '.'
        print(shown, end='', flush=True)
  print(f'\n{"fault":36}{"tried":>8}{"survived":>10}')
  for fault in sorted(tried):
    print(f'{fault:36}{tried[fault]:8}{survived[fault]:10}')
  sys.exit(tried != survived)


if __name__ == '__main__':
  main()
