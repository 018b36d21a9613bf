"""Two processes that share the batch train as one does.

They are started as Slurm starts them, with its variables, and join by
themselves.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np

from emanet_jax.state import checkpoint
from tests import tiny

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STEPS = 2


def _of_slurm(index, job):
  """What Slurm tells a process of two; JAX's port follows from the job."""
  return {
    'SLURM_JOB_ID': str(job),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_STEP_NUM_TASKS': '2',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': str(index),
    'SLURM_LOCALID': str(index),
  }


def _start(flags, **environment):
  return subprocess.Popen(
    [sys.executable, '-m', 'emanet_jax.main', *flags],
    cwd=REPOSITORY,
    env={
      **os.environ,
      **environment,
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
  flags, job = tiny.flags(tmp_path / 'two', **changes), os.getpid()
  pair = [_start(flags, **_of_slurm(i, job)) for i in range(2)]
  single = _start(tiny.flags(tmp_path / 'one', **changes))
  for index, process in enumerate((*pair, single)):
    code, output = tiny.finish(process, timeout=900)
    assert code == 0, output
    joined = f'process {index} of 2, with 1 of 2 devices'
    assert (joined in output) == (process is not single)

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


def test_processes_that_stand_side_by_side_unjoined_are_refused(tmp_path):
  """Each would train alone, in one workdir."""
  for given, variable in (
    (['--distributed=off'], 'SLURM_STEP_NUM_TASKS'),
    ([], 'OMPI_COMM_WORLD_SIZE'),
    ([], 'PMI_SIZE'),
  ):
    flags = [*tiny.flags(tmp_path / 'run'), *given]
    code, output = tiny.finish(_start(flags, **{variable: '2'}))
    assert code == 1
    assert f'error: {variable} is 2: so many processes stand' in output
    assert not (tmp_path / 'run').exists()
