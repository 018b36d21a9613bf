"""What is given to `--config` and its keys is checked before anything runs.

As a program it tries the values, in a process that has the flags of `main`.
"""

import json
import sys

import pytest
from absl.testing import flagsaver
from flax import traverse_util

from emanet_jax import config_flag
from emanet_jax.config import default_config
from tests.programs import run_python

# By the type of a default: values of another.
WRONG = {
  bool: ['abc', '7'],
  int: ['abc', '1.5', '(1,)'],
  float: ['abc', '(1,)', 'nan', 'inf'],
  tuple: ['abc', "('a',)", "(1, 'a')", '(None,)', '(True,)'],
}
LEAVES = traverse_util.flatten_dict(default_config().to_dict(), sep='.')
CASES = [
  (key, text)
  for key, default in LEAVES.items()
  for text in WRONG.get(type(default), ())
] + [('eval.flip', 'abc'), ('data.scales', '(inf,)')]
RIGHT = {
  'data.scales': ('(1, 0.5)', [1, 0.5]),
  'eval.scales': ('2', [2]),
  'model.backbone.stage_sizes': ('(1, 1, 1, 1)', [1, 1, 1, 1]),
  'predict.pixel': ('(3, 4)', [3, 4]),
  'loss.cross_entropy.class_weights': ('(1, 2.5)', [1, 2.5]),
  'eval.flip': ('True', True),
}


@pytest.fixture(scope='module')
def told():
  """What each case comes to, as (message, value)."""
  finished = run_python('-m', 'tests.test_config_flag')
  return json.loads(finished.stdout.splitlines()[-1])


def test_every_leaf_refuses_a_value_of_another_type(told):
  assert len(CASES) > 200
  for key, text in CASES:
    message, value = told[f'{key}={text}']
    assert message, (key, text, value)
    assert message.startswith('error: ')
    assert key in message
    assert len(message.splitlines()) == 1


def test_tuples_say_what_they_hold(told):
  message, _ = told['data.scales=abc']
  assert message == (
    "error: data.scales is ('abc',); give numbers, as "
    '"(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)"'
  )
  message, _ = told["predict.bases=('a',)"]
  assert message.endswith('give whole numbers, as "(1, 2)"')


def test_values_of_the_type_are_taken(told):
  for key, (text, value) in RIGHT.items():
    assert told[f'{key}={text}'] == ['', value]


def main() -> None:
  """Parses each case's flags, and writes what came of it."""
  from absl import flags

  from emanet_jax import main as program

  assert program.CONFIG is not None
  base, report = flagsaver.save_flag_values(), {}
  for key, text in [*CASES, *((k, text) for k, (text, _) in RIGHT.items())]:
    sys.argv = ['main', '--config=configs/voc.py', f'--config.{key}={text}']
    message, value = '', None
    try:
      config_flag.parse_flags(sys.argv)
      leaves = flags.FLAGS.config.to_dict()
      value = traverse_util.flatten_dict(leaves, sep='.')[key]
    except SystemExit as error:
      message = str(error)
    flagsaver.restore_flag_values(base)
    report[f'{key}={text}'] = message, value
  print(json.dumps(report))


if __name__ == '__main__':
  main()
