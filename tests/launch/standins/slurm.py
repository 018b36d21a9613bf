"""Stand-ins for Slurm 22.05."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

from tests.launch.standins.common import parser, record

SBATCH = parser(
  'sbatch',
  '-J|--job-name -N|--nodes --gpus-per-node --ntasks-per-node -t|--time '
  '-c|--cpus-per-task --signal --open-mode -o|--output',
  '--requeue',
  rest=True,
)


def sbatch(arguments: list[str]) -> int:
  """Runs the script as the first node would, from another place."""
  script = pathlib.Path(SBATCH.parse_args(arguments).words[0])
  lines = re.findall(r'^#SBATCH (.*)$', script.read_text(), re.M)
  own = [word for line in lines for word in shlex.split(line)]
  options = SBATCH.parse_args([*own, *arguments])  # the later ones hold
  record('sbatch', arguments, options=vars(options))
  spool = pathlib.Path(os.environ['STANDINS_CALLS']).with_name('slurm_script')
  spool.write_bytes(script.read_bytes())
  job = subprocess.Popen(
    ['bash', spool, *options.words[1:]],
    env={
      **os.environ,
      'SLURM_JOB_ID': '4242',
      'SLURM_JOB_NUM_NODES': options.nodes,
      'SLURM_NTASKS_PER_NODE': options.ntasks_per_node,
      'SLURM_CPUS_PER_TASK': options.cpus_per_task,
      'SLURM_GPUS_ON_NODE': options.gpus_per_node,
    },
  )
  if sent := os.environ.get('STANDINS_SIGNAL'):
    wanted = int(options.nodes) * int(options.ntasks_per_node)
    while len(list(pathlib.Path(sent).iterdir())) < wanted:
      assert job.poll() is None
      time.sleep(0.05)
    how, _, _ = options.signal.partition('@')
    steps = [int(p.name) for p in pathlib.Path(sent).iterdir()]
    if os.environ.get('STANDINS_CANCEL'):  # scancel: all of the job
      to, how = [job.pid, *steps], 'TERM'
    else:
      to = [job.pid] if 'B' in how.rpartition(':')[0] else steps
    for process in to:
      os.kill(process, getattr(signal, f'SIG{how.rpartition(":")[2]}'))
  return job.wait()


SRUN = parser('srun', '-c|--cpus-per-task -K|--kill-on-bad-exit', rest=True)


def srun(arguments: list[str]) -> int:
  """Runs all tasks here, at once; ends as the one with the greatest code."""
  options = SRUN.parse_args(arguments)
  record('srun', arguments)
  nodes = int(os.environ['SLURM_JOB_NUM_NODES'])
  per_node = int(os.environ['SLURM_NTASKS_PER_NODE'])
  del os.environ['SLURM_CPUS_PER_TASK']  # srun of 22.05 reads it not
  tasks = [
    subprocess.Popen(
      options.words,
      env={
        **os.environ,
        'SLURM_NTASKS': str(nodes * per_node),
        'SLURM_STEP_NUM_TASKS': str(nodes * per_node),
        'SLURM_STEP_NODELIST': f'node[001-{nodes:03}]',
        'SLURM_PROCID': str(task),
        'SLURM_LOCALID': str(task % per_node),
        'SLURM_CPUS_PER_TASK': options.cpus_per_task or '1',
      },
    )
    for task in range(nodes * per_node)
  ]
  codes = [task.wait() for task in tasks]
  return max(code if code >= 0 else 128 - code for code in codes)
