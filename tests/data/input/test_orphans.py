"""A training process that is killed leaves nothing behind."""

import os
import pathlib
import signal
import sys
import time
import uuid

import pytest

from emanet_jax.training.metric_writer import read_metrics
from tests import tiny

SHARED_MEMORY = pathlib.Path('/dev/shm')


def marked(mark):
  """Processes with the mark in their environment, which children inherit."""
  found = set()
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      environment = (folder / 'environ').read_bytes()
      state = (folder / 'stat').read_text().rpartition(')')[2].split()[0]
    except OSError:  # It has just ended, or belongs to somebody else.
      continue
    if mark.encode() in environment and state != 'Z':
      found.add(int(folder.name))
  return found


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_a_killed_run_leaves_no_process_and_no_shared_memory(
  tmp_path, tmp_path_factory
):
  before, mark = set(os.listdir(SHARED_MEMORY)), uuid.uuid4().hex
  process = tiny.start_main(
    tiny.flags(
      tmp_path / 'run',
      data__data_dir=tiny.shared(tmp_path_factory, 'data'),
      data__num_threads=4,
      data__prefetch=8,
      train__steps=100_000,
    ),
    cache=tiny.shared(tmp_path_factory, 'compiled'),
    TINY_MARK=mark,
  )
  metrics = tmp_path / 'run' / 'metrics.jsonl'
  tiny.wait_until(
    lambda: metrics.exists() and len(read_metrics(metrics.parent)) > 5, process
  )
  assert process.pid in marked(mark)  # The search does find.
  process.kill()
  assert process.wait() == -signal.SIGKILL
  process.stdout.close()
  time.sleep(0.5)
  assert marked(mark) == set()
  assert set(os.listdir(SHARED_MEMORY)) <= before
