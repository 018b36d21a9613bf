"""What a run's metrics hold after normal ends, kills and restarts."""

import json
import math
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from emanet_jax import errors
from emanet_jax.training import metric_writer
from emanet_jax.training.metric_writer import (
  MetricWriter,
  evaluated_scores,
  read_metrics,
)


def tensorboard_events(directory):
  """Reads TFRecords: length (8), checksum (4), data, checksum (4)."""
  files = sorted(directory.glob('tensorboard/*'), key=lambda p: p.stat().st_ino)
  events = []
  for file in files:
    data = file.read_bytes()
    while data:
      length = int.from_bytes(data[:8], 'little')
      events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return events


def scalars(directory):
  return {
    (event.step, value.tag): value.simple_value
    for event in tensorboard_events(directory)
    for value in event.summary.value
  }


def write_steps(directory, steps, **options):
  with MetricWriter(directory, **options) as writer:
    for step in steps:
      writer.write(step, 'train', {'loss': float(step)})


def steps(directory):
  return [record['step'] for record in read_metrics(directory)]


def test_records_come_back(tmp_path, monkeypatch):
  monkeypatch.setattr(metric_writer.time, 'time', lambda: 1234.5)
  directory = tmp_path / 'new' / 'run'
  with MetricWriter(directory, step=0) as writer:
    writer.write(
      10, 'train', {'loss': jnp.float32(0.5), 'learning_rate': np.float32(2)}
    )
    writer.write(10, 'eval', {'mIoU': 0.25})
  assert read_metrics(directory) == [
    {
      'step': 10,
      'split': 'train',
      'time': 1234.5,
      'loss': 0.5,
      'learning_rate': 2.0,
    },
    {'step': 10, 'split': 'eval', 'time': 1234.5, 'mIoU': 0.25},
  ]
  assert scalars(directory) == {
    (10, 'train/loss'): 0.5,
    (10, 'train/learning_rate'): 2.0,
    (10, 'eval/mIoU'): 0.25,
  }


def test_each_line_is_on_disk_at_once(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.write(1, 'train', {'loss': 1.0})
    assert steps(tmp_path) == [1]


def test_values_that_json_lacks_become_null(tmp_path):
  values = {'a': math.nan, 'b': math.inf, 'c': -math.inf, 'd': 1.0}
  with MetricWriter(tmp_path) as writer:
    writer.write(1, 'train', values)

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  text = (tmp_path / 'metrics.jsonl').read_text()
  record = json.loads(text, parse_constant=refuse)
  assert [record[name] for name in 'abcd'] == [None, None, None, 1.0]
  assert math.isnan(scalars(tmp_path)[1, 'train/a'])


@pytest.mark.parametrize(
  ('restart', 'kept'),
  [(None, [1, 2, 3, 4]), (0, []), (2, [1, 2]), (4, [1, 2, 3, 4])],
)
def test_restart_drops_what_comes_again(tmp_path, restart, kept):
  write_steps(tmp_path, [1, 2, 3, 4])
  write_steps(tmp_path, [5], step=restart)
  assert steps(tmp_path) == [*kept, 5]
  assert [path.name for path in tmp_path.glob('.*')] == []


def test_restart_tells_tensorboard_the_first_step_to_hide(tmp_path):
  write_steps(tmp_path, [1, 2, 3])
  write_steps(tmp_path, [3], step=2)
  starts = [
    event.step
    for event in tensorboard_events(tmp_path)
    if event.HasField('session_log')
  ]
  assert starts == [3]
  # Both runs keep their file, although they began in the same second.
  assert len(list(tmp_path.glob('tensorboard/*'))) == 2


def test_what_two_runs_wrote_at_once_is_there_once_again(tmp_path):
  write_steps(tmp_path, [1, 2, 3])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + path.read_text())
  assert steps(tmp_path) == [1, 2, 3, 1, 2, 3]
  write_steps(tmp_path, [3], step=2)
  assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize('torn', ['{"step": 3, "spl', '{', '\0\0\0', '7', '{}'])
@pytest.mark.parametrize('restart', [None, 2])
def test_torn_last_line(tmp_path, torn, restart):
  write_steps(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text() + torn)
  assert steps(tmp_path) == [1, 2]
  write_steps(tmp_path, [3], step=restart)
  assert steps(tmp_path) == [1, 2, 3]


def test_last_line_that_lacks_only_its_end_is_kept(tmp_path):
  write_steps(tmp_path, [1, 2])
  path = tmp_path / 'metrics.jsonl'
  path.write_text(path.read_text().removesuffix('\n'))
  write_steps(tmp_path, [3])
  assert steps(tmp_path) == [1, 2, 3]


def test_restart_keeps_null(tmp_path):
  with MetricWriter(tmp_path) as writer:
    writer.write(1, 'train', {'loss': math.nan})
  write_steps(tmp_path, [2], step=1)
  assert read_metrics(tmp_path)[0]['loss'] is None


def test_foreign_line_is_refused_with_its_place(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('step,loss\n1,2\n')
  for act in (read_metrics, MetricWriter):
    with pytest.raises(errors.UserError, match=r'metrics\.jsonl, line 1'):
      act(tmp_path)
  assert path.read_text() == 'step,loss\n1,2\n'


def test_steps_evaluated_until_a_checkpoint(tmp_path):
  assert evaluated_scores(tmp_path, 9) == {}
  with MetricWriter(tmp_path) as writer:
    for step, split in ((2, 'train'), (4, 'eval'), (6, 'eval'), (8, 'eval')):
      writer.write(step, split, {} if step == 6 else {'mIoU': step / 16})
  scores = evaluated_scores(tmp_path, 6)
  assert list(scores) == [4, 6]
  assert scores[4] == 0.25
  assert math.isnan(scores[6])
  (tmp_path / 'metrics.jsonl').write_text('step,loss\n1,2\n')
  assert evaluated_scores(tmp_path, 0) == {}
  with pytest.raises(errors.UserError, match=r'metrics\.jsonl, line 1'):
    evaluated_scores(tmp_path, 1)


def test_reading_a_folder_without_a_run(tmp_path):
  with pytest.raises(errors.UserError, match='does not exist'):
    read_metrics(tmp_path / 'typo')


def test_wrong_records_are_refused(tmp_path):
  with MetricWriter(tmp_path) as writer:
    with pytest.raises(ValueError, match="'val'"):
      writer.write(1, 'val', {'mIoU': 1.0})
    with pytest.raises(ValueError, match="'time'"):
      writer.write(1, 'train', {'time': 1.0})
  assert read_metrics(tmp_path) == []


def test_a_forgotten_writer_neither_holds_the_process_nor_loses_lines(tmp_path):
  script = """
    import sys
    from emanet_jax.training.metric_writer import MetricWriter
    writer = MetricWriter(sys.argv[1])
    for step in range(500):
      writer.write(step, 'train', {'loss': 1.0})
    raise SystemExit(3)
  """
  ended = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(script), str(tmp_path)],
    timeout=20,
    check=False,
  )
  assert ended.returncode == 3
  assert steps(tmp_path) == list(range(500))
