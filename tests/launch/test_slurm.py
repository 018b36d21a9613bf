"""launch/slurm.sbatch: what its processes are told, and when it comes again."""

import os

import pytest
from jax._src.clusters import SlurmCluster

NODES, GPUS = 2, 2
JOB = (
  f'sbatch --nodes={NODES} --gpus-per-node={GPUS} --ntasks-per-node={GPUS} '
  '--cpus-per-task=5 launch/slurm.sbatch --config configs/shapes.py'
)


@pytest.fixture(scope='module')
def job(launch):
  result = launch(JOB, STANDINS_GPUS=str(GPUS))
  assert result.code == 0, result.output
  return result


def test_jax_finds_the_processes_and_each_its_gpu(job, monkeypatch):
  found = []
  for call in job.of('python'):
    for name in [x for x in os.environ if x.startswith('SLURM_')]:
      monkeypatch.delenv(name)
    for name, value in call['environment'].items():
      monkeypatch.setenv(name, value)
    assert SlurmCluster.is_env_present()
    assert SlurmCluster.get_process_count() == NODES * GPUS
    address = SlurmCluster.get_coordinator_address(1, None)
    assert address.startswith('node001:')
    found.append(
      (SlurmCluster.get_process_id(), SlurmCluster.get_local_process_id())
    )
  assert sorted(found) == [(i, i % GPUS) for i in range(NODES * GPUS)]


def test_each_process_has_its_cpus_and_must_find_its_gpu(job):
  told = [call['environment'] for call in job.of('python')]
  assert {x['SLURM_CPUS_PER_TASK'] for x in told} == {'5'}
  assert {x['JAX_PLATFORMS'] for x in told} == {'cuda,cpu'}
  assert not [x for x in told if 'JAX_LOCAL_DEVICE_IDS' in x]


def test_it_asks_for_notice_and_may_come_again(job):
  [options] = [call['options'] for call in job.of('sbatch')]
  assert options['signal'] == 'TERM@120'
  assert options['requeue']
  assert options['open_mode'] == 'append'


def test_stopped_before_the_time_limit_it_comes_again(launch, tmp_path):
  """The signal reaches the processes, which save; the shell sees 75."""
  result = launch(JOB, STANDINS_SIGNAL=str(tmp_path))
  assert result.code == 75
  requeues = [call['command'] for call in result.of('scontrol')]
  assert requeues == [['scontrol', 'requeue', '4242']]


def test_cancelled_it_does_not_come_again(launch, tmp_path):
  result = launch(JOB, STANDINS_SIGNAL=str(tmp_path), STANDINS_CANCEL='1')
  assert result.code != 0
  assert result.of('srun')
  assert not result.of('scontrol')


@pytest.mark.parametrize('code', ['0', '1', '134'])
def test_finished_or_failed_it_does_not_come_again(code, launch):
  result = launch(JOB, STANDINS_CODE=code)
  assert result.code == int(code)
  assert not result.of('scontrol')


def test_processes_and_gpus_that_do_not_match_are_refused(launch):
  line = 'sbatch --gpus-per-node=4 launch/slurm.sbatch --config c.py'
  result = launch(line)
  assert result.code == 1
  assert 'error: 8 processes a node for its 4 GPUs' in result.output
  assert not result.of('srun')
