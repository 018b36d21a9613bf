"""Two processes that share the batch train as one does.

As a program (`python tests/test_multiprocess.py ADDRESS INDEX FLAGS`) this file
is `emanet_jax.main` as process INDEX of two.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
from absl import app

from emanet_jax import main
from emanet_jax.state import checkpoint
from tests import tiny

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STEPS = 2


def _start(arguments):
  return subprocess.Popen(
    [sys.executable, *arguments],
    cwd=REPOSITORY,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(REPOSITORY),
      'XLA_FLAGS': '--xla_backend_optimization_level=0 '
      '--xla_llvm_disable_expensive_passes=true',
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _restore(workdir):
  """The last step's variables, brought to one device."""
  manager = checkpoint.open_manager(workdir)
  assert manager.latest_step() == STEPS
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return checkpoint.restore_variables(manager, device)


def test_two_processes_train_and_evaluate_as_one(tmp_path):
  changes = {
    'data__data_dir': tmp_path / 'data',
    'train__steps': STEPS,
    'train__checkpoint_every': 1,
    'train__eval_every': 1,
    # The processes' shares make another order within the batch, and dropout
    # goes by the place in the batch.
    'model__head__dropout_rate': 0.0,
    'optimizer__learning_rate': 1e-3,  # rounding grows with every step
    'eval__num_pictures': 2,
  }
  data = tiny.tiny_config(data__data_dir=str(tmp_path / 'data')).data
  tiny.open_dataset(data)
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  pair = [
    _start(
      [__file__, address, str(i), *tiny.flags(tmp_path / 'two', **changes)]
    )
    for i in range(2)
  ]
  single = _start(
    ['-m', 'emanet_jax.main', *tiny.flags(tmp_path / 'one', **changes)]
  )
  for process in (*pair, single):
    code, output = tiny.finish(process, timeout=900)
    assert code == 0, output

  two, one = (_restore(tmp_path / name) for name in ('two', 'one'))
  for ours, theirs in zip(
    jax.tree.leaves(two), jax.tree.leaves(one), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
  scores = [
    json.loads((tmp_path / name / 'eval' / 'scores.json').read_text())
    for name in ('two', 'one')
  ]
  assert [s['num_images'] for s in scores] == [96, 96]
  assert abs(scores[0]['pAcc'] - scores[1]['pAcc']) < 1e-3


if __name__ == '__main__':
  # Before anything of JAX's starts a backend.
  jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
  app.run(main.main, [sys.argv[0], *sys.argv[3:]])
