"""Stand-ins for docker 28 and kubectl 1.32."""

import argparse
import json
import os
import pathlib
import re

from tests.launch.standins.common import (
  REPOSITORY,
  TOLD,
  parser,
  record,
  run,
  simple,
)

RUN = parser(
  'docker run',
  '--name --network -u|--user --gpus -v|--volume -w|--workdir',
  '-d|--detach --privileged --rm',
  rest=True,
)
RUN.add_argument('-e', '--env', action='append', default=[])


def docker(arguments: list[str]) -> int:
  name, *rest = arguments
  if name == 'run':
    options = RUN.parse_args(rest)
    record('docker', arguments, options=vars(options))
    variables = dict(given.split('=', 1) for given in options.env)
    return container(options.words[1:], **variables)
  if name == 'build':
    options = parser('b', '-f|--file --build-arg -t|--tag').parse_args(rest)
    record('docker', arguments, options=vars(options))
    return build(options)
  flags = {
    'rm': parser('rm', ''),
    'logs': parser('logs', '-n|--tail', '-f|--follow'),
    'stop': parser('stop', '-t|--timeout'),
    'push': parser('push', ''),
  }
  return simple('docker', flags[name])(arguments)


def dockerfile() -> list[tuple[str, str]]:
  """Instructions and what follows each."""
  text = (REPOSITORY / 'launch' / 'Dockerfile').read_text()
  lines = re.sub(r'^#.*\n', '', text, flags=re.M).replace('\\\n', ' ')
  return [tuple(x.split(' ', 1)) for x in lines.splitlines() if x.strip()]


def container(arguments: list[str], **variables: str) -> int:
  """Runs what an image of launch/Dockerfile runs, with these variables only."""
  [entry] = [json.loads(x) for name, x in dockerfile() if name == 'ENTRYPOINT']
  for name in [x for x in os.environ if x.startswith(TOLD)]:
    del os.environ[name]
  return run([*entry, *arguments], **variables)


def build(options: argparse.Namespace) -> int:
  """Runs the RUN instructions; copies have to be there."""
  assert (REPOSITORY / options.file).samefile(REPOSITORY / 'launch/Dockerfile')
  variables = {}
  for name, rest in dockerfile():
    if name == 'ARG':
      variables |= [rest.split('=')]
      given = (options.build_arg or '=').split('=')
      assert given[0] in {*variables, ''}, given
      variables |= {k: v for k, v in [given] if k}
    if name == 'COPY':
      assert all((REPOSITORY / x).exists() for x in rest.split()[:-1]), rest
    if name == 'RUN' and run(['bash', '-ec', rest], **variables):
      return 1
  return 0


def kubectl(arguments: list[str]) -> int:
  """`apply` runs the pods of JobSets, one after another."""
  name, *rest = arguments
  if name == 'logs':
    return simple('kubectl', parser('logs', '', '-f|--follow'))(arguments)
  flags = {k: parser(k, '-f|--filename') for k in ('apply', 'delete')}
  options = flags[name].parse_args(rest)
  record('kubectl', arguments)
  import yaml  # here, since all stand-ins are to start quickly

  text = pathlib.Path(options.filename).read_text()
  found = [x for x in yaml.safe_load_all(text) if x['kind'] == 'JobSet']
  return max(map(pods, found)) if name == 'apply' else 0


def pods(jobset: dict) -> int:
  """Runs the pods of a JobSet; the greatest code of them."""
  name, first = jobset['metadata']['name'], jobset['spec']['coordinator']
  places = [first['replicatedJob'], first.get('jobIndex', 0)]
  host = '-'.join(map(str, [name, *places, first.get('podIndex', 0)]))
  fields = {
    "metadata.annotations['jobset.sigs.k8s.io/coordinator']": f'{host}.{name}'
  }
  codes = []
  for job in jobset['spec']['replicatedJobs']:
    spec = job['template']['spec']
    pod = spec['template']['spec']
    for index in range(job['replicas'] * spec['parallelism']):
      for before in pod['initContainers']:
        codes.append(run(before['command'], **variables(before, fields)))
      [main] = pod['containers']
      codes.append(
        container(
          main['args'], JOB_COMPLETION_INDEX=index, **variables(main, fields)
        )
      )
  return max(codes)


def variables(container: dict, fields: dict[str, str]) -> dict[str, str]:
  return {
    x['name']: x['value']
    if 'value' in x
    else fields[x['valueFrom']['fieldRef']['fieldPath']]
    for x in container.get('env', ())
  }
