"""Contests: processes in turns, figures that add up."""

import pytest

from emanet_jax.errors import UserError
from emanet_jax.tools.benchmark import contest
from emanet_jax.tools.benchmark.contest import Contender

STUBS = 'tests.tools.subjects'


def sleeper(seconds, log, compiles=False):
  options = {'seconds': seconds, 'log': str(log), 'compiles': compiles}
  return Contender(f'{STUBS}:sleeping', options)


def test_turns_alternate_and_ratios_are_of_neighbours(tmp_path):
  log = tmp_path / 'log'
  result = contest.run(
    {'slow': sleeper(0.06, log, compiles=True), 'fast': sleeper(0.02, log)},
    rounds=3,
    steps=2,
  )
  lines = log.read_text().splitlines()
  starts = [line for line in lines if 'start' in line]
  # What compiles is started twice, and all have one folder of programs.
  assert [line.split()[0] for line in starts] == 2 * ['0.06'] + ['0.02']
  assert len({line.split()[2] for line in starts}) == 1
  steps = [line.split()[0] for line in lines if 'step' in line]
  first = 4 * ['0.06'] + 4 * ['0.02']  # two of them to warm up
  assert steps == first + 2 * (2 * ['0.06'] + 2 * ['0.02'])
  slow, fast = (result['contenders'][name] for name in ('slow', 'fast'))
  assert slow['seconds_asked'] == 0.06
  assert 0.06 <= slow['seconds'][1] <= slow['seconds'][0] <= slow['seconds'][2]
  assert 0.02 <= fast['seconds'][0] < 0.06
  assert list(result['ratios']) == ['fast']
  middle, least, most = result['ratios']['fast']
  assert 1.5 < least <= middle <= most < 3.5


def test_memory_is_what_the_work_took():
  result = contest.run(
    {'it': Contender(f'{STUBS}:hungry', {'megabytes': 200})}, rounds=1, steps=1
  )
  assert 199 << 20 <= result['contenders']['it']['peak_bytes'] < 230 << 20


def test_a_contender_that_fails_ends_the_contest(capfd):
  with pytest.raises(UserError, match='measures it ended with 1'):
    contest.run({'it': Contender(f'{STUBS}:broken', {})}, rounds=1, steps=1)
  assert 'no such device' in capfd.readouterr().err


def test_a_contender_that_vanishes_between_turns_is_named(tmp_path):
  contenders = {
    'it': Contender(f'{STUBS}:fleeting', {}),
    'slow': sleeper(1.0, tmp_path / 'log'),
  }
  with pytest.raises(UserError, match='measures it ended with 3'):
    contest.run(contenders, rounds=2, steps=1)
