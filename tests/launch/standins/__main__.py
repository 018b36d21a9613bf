"""Stand-ins for the commands that launching needs, which are not here.

`python -m tests.launch.standins NAME ARGUMENTS` is such a command: it takes its
real flags, as far as they are used here, and no others, writes a line of JSON
to the file STANDINS_CALLS, and has those things happen that the real one would:
tasks of srun, hosts of a TPU slice, containers of docker, pods of kubectl. What
they run at last, Python, is a stand-in, too: it ends with STANDINS_CODE, or,
where STANDINS_SIGNAL names a folder, with 75 as soon as it gets SIGTERM.
"""

import os
import pathlib
import signal
import sys
import time

from tests.launch.standins.cloud import gcloud, sky, uv
from tests.launch.standins.common import parser, record, run, simple
from tests.launch.standins.containers import docker, kubectl
from tests.launch.standins.slurm import sbatch, srun


def python(arguments: list[str]) -> int:
  record('python', arguments)
  if 'STANDINS_SIGNAL' in os.environ:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    pathlib.Path(os.environ['STANDINS_SIGNAL'], str(os.getpid())).touch()
    time.sleep(20)
  return int(os.environ.get('STANDINS_CODE', '0'))


def nvidia_smi(arguments: list[str]) -> int:
  parser('nvidia-smi', '', '-L|--list-gpus').parse_args(arguments)
  gpus = int(os.environ.get('STANDINS_GPUS', '0'))
  print('\n'.join(f'GPU {i}: NVIDIA H100 80GB HBM3' for i in range(gpus)))
  return 0 if gpus else 6


def pip(arguments: list[str]) -> int:
  assert arguments[0] == 'install', arguments
  flags = parser('install', '-r|--requirement', '--no-cache-dir')
  return simple('pip', flags)(arguments)


STAND_INS = {
  **{f.__name__: f for f in (python, sbatch, srun, gcloud, docker, kubectl)},
  **{f.__name__: f for f in (sky, uv, pip)},
  'nvidia-smi': nvidia_smi,
  'getent': simple('getent', parser('getent', '')),
  'scontrol': simple('scontrol', parser('scontrol', '')),
  'useradd': simple('useradd', parser('a', '-u|--uid', '-m|--create-home')),
  'sudo': lambda arguments: run(arguments),
}


if __name__ == '__main__':
  sys.exit(STAND_INS[sys.argv[1]](sys.argv[2:]))
