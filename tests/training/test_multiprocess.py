"""Two processes that share the batch train as one does.

They are started as Slurm starts them, with its variables, and join by
themselves.
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from emanet_jax.state import checkpoint
from emanet_jax.training.metric_writer import read_metrics
from tests import tiny
from tests.xla_flags import QUICKLY

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
STEPS = 2


def _of_slurm(index, count, job):
  """What Slurm tells a process; JAX's port follows from the job."""
  return {
    'SLURM_JOB_ID': str(job),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_STEP_NUM_TASKS': str(count),
    'SLURM_NTASKS': str(count),
    'SLURM_PROCID': str(index),
    'SLURM_LOCALID': str(index),
  }


def _start(flags, devices=1, **environment):
  return subprocess.Popen(
    [sys.executable, '-m', 'emanet_jax.main', *flags],
    cwd=REPOSITORY,
    env={
      **os.environ,
      **environment,
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': str(devices),
      'PYTHONPATH': str(REPOSITORY),
      'XLA_FLAGS': QUICKLY,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _run(flags, processes=1, devices=1):
  """Runs to the end; returns what each process has told."""
  job = random.randrange(1 << 20)
  started = [
    _start(
      flags,
      devices,
      **(_of_slurm(i, processes, job) if processes > 1 else {}),
    )
    for i in range(processes)
  ]
  told = []
  for process in started:
    code, output = tiny.finish(process, timeout=900)
    assert code == 0, output
    told.append(output)
  return told


def _restore(workdir):
  """The last step's variables, brought to one device."""
  manager = checkpoint.open_manager(workdir)
  assert manager.latest_step() == STEPS
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return checkpoint.restore_variables(manager, device)


@pytest.fixture(scope='module')
def changes(tmp_path_factory):
  """Of a run of two steps, each saved and scored."""
  data_dir = tmp_path_factory.mktemp('data')
  tiny.open_dataset(tiny.tiny_config(data__data_dir=str(data_dir)).data)
  return {
    'data__data_dir': data_dir,
    'train__steps': STEPS,
    'train__checkpoint_every': 1,
    'train__eval_every': 1,
    'train__batch_size': 8,
    # The processes' shares make another order within the batch, and dropout
    # goes by the place in the batch.
    'model__head__dropout_rate': 0.0,
    'optimizer__learning_rate': 1e-3,  # rounding grows with every step
    'eval__num_pictures': 2,
  }


@pytest.fixture(scope='module')
def alone(changes, tmp_path_factory):
  """The workdir of one process."""
  workdir = tmp_path_factory.mktemp('one')
  (told,) = _run(tiny.flags(workdir, **changes))
  assert 'process 0 of' not in told
  return workdir


def _assert_same_end(workdir, alone):
  for ours, theirs in zip(
    jax.tree.leaves(_restore(workdir)),
    jax.tree.leaves(_restore(alone)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
  ours, theirs = map(read_metrics, (workdir, alone))
  assert [(r['split'], r['step']) for r in ours] == [
    (r['split'], r['step']) for r in theirs
  ]
  for one, other in zip(ours, theirs, strict=True):
    for key in ('loss', 'grad_norm', 'pAcc', 'mIoU'):
      if key in other:
        assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-3), key
  ours, theirs = (
    json.loads((folder / 'eval' / 'scores.json').read_text())
    for folder in (workdir, alone)
  )
  assert ours['num_images'] == theirs['num_images'] == 96


def test_two_processes_train_and_evaluate_as_one(changes, alone, tmp_path):
  """With the large arrays of the state split between them."""
  told = _run(tiny.flags(tmp_path, **changes, mesh__fsdp=2), processes=2)
  for index, output in enumerate(told):
    assert f'process {index} of 2, with 1 of 2 devices' in output
  _assert_same_end(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('processes', 'mesh'),
  [
    (2, {}),
    (4, {}),
    (2, {'mesh__space': 2}),
    (2, {'mesh__fsdp': 4}),
    (4, {'mesh__fsdp': 2, 'mesh__space': 2}),
  ],
)
def test_a_run_goes_on_on_any_number_of_machines(
  changes, alone, tmp_path, processes, mesh
):
  """From one process to several of two devices each, and back."""
  cluster = {'processes': processes, 'devices': 2}
  taken_over = tmp_path / 'taken_over'
  shutil.copytree(alone, taken_over)
  shutil.rmtree(taken_over / 'checkpoints' / '2')
  told = _run(tiny.flags(taken_over, **changes, **mesh), **cluster)
  assert 'going on from step 1' in told[0]
  _assert_same_end(taken_over, alone)

  straight = tmp_path / 'straight'
  _run(tiny.flags(straight, **changes, **mesh), **cluster)
  _assert_same_end(straight, alone)
  shutil.rmtree(straight / 'checkpoints' / '2')
  (told,) = _run(tiny.flags(straight, **changes))
  assert 'going on from step 1' in told
  _assert_same_end(straight, alone)


def test_processes_that_stand_side_by_side_unjoined_are_refused(
  tmp_path, commands
):
  """Each would train alone, in one workdir."""
  for given, variable in (
    (['--distributed=off'], 'SLURM_STEP_NUM_TASKS'),
    ([], 'OMPI_COMM_WORLD_SIZE'),
    ([], 'PMI_SIZE'),
  ):
    flags = [*tiny.flags(tmp_path / 'run'), *given]
    done = commands.run('emanet_jax.main', *flags, **{variable: '2'})
    assert done.returncode == 1
    assert f'error: {variable} is 2: so many processes stand' in done.stderr
    assert not (tmp_path / 'run').exists()
