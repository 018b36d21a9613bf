"""Stand-ins for gcloud 528, and for SkyPilot 0.14."""

import pathlib

from tests.launch.standins.common import parser, record, run, simple

WORKERS = 2  # hosts of a TPU slice
TPU = {
  ('queued-resources', 'create'): parser(
    'create',
    '--zone --node-id --accelerator-type --runtime-version --project --network',
    '--spot --reserved --guaranteed --internal-ips --async',
  ),
  ('queued-resources', 'describe'): parser('describe', '--zone --format'),
  ('queued-resources', 'delete'): parser(
    'delete', '--zone', '--force --quiet --async'
  ),
  ('tpu-vm', 'ssh'): parser('ssh', '--zone --worker --command'),
}


def gcloud(arguments: list[str]) -> int:
  """`ssh` has bash run the command, as the shell of each host would."""
  if arguments[:2] == ['auth', 'configure-docker']:
    return simple('gcloud', parser('auth', '', '-q|--quiet'))(arguments)
  assert arguments[:2] == ['compute', 'tpus'], arguments
  options = TPU[tuple(arguments[2:4])].parse_args(arguments[4:])
  assert len(options.words) == 1, options.words
  assert options.zone, arguments
  record('gcloud', arguments, options=vars(options))
  if arguments[3] == 'ssh':
    count = WORKERS if options.worker == 'all' else 1
    ends = [run(['bash', '-c', options.command]) for _ in range(count)]
    return max(ends)
  return 0


def sky(arguments: list[str]) -> int:
  """`jobs launch` sets a machine up and runs the task there."""
  if arguments[:2] == ['jobs', 'logs']:
    return simple('sky', parser('logs', '-n|--name'))(arguments)
  assert arguments[:2] == ['jobs', 'launch'], arguments
  flags = parser('launch', '-n|--name --env', '-y|--yes')
  options = flags.parse_args(arguments[2:])
  record('sky', arguments)
  import yaml  # here, since all stand-ins are to start quickly

  task = yaml.safe_load(pathlib.Path(options.words[0]).read_text())
  variables = dict(task['envs'])
  if options.env:
    variables |= [options.env.split('=', 1)]
  if code := run(['bash', '-ec', task['setup']], **variables):
    return code
  return run(['bash', '-c', task['run']], **variables)


def uv(arguments: list[str]) -> int:
  record('uv', arguments)
  if arguments[0] == 'venv':
    options = parser('venv', '-p|--python').parse_args(arguments[1:])
    activate = pathlib.Path(options.words[0], 'bin', 'activate')
    activate.parent.mkdir(parents=True)
    activate.write_text('')
  else:
    assert arguments[:2] == ['pip', 'install'], arguments
    parser('install', '-r|--requirements').parse_args(arguments[2:])
  return 0
