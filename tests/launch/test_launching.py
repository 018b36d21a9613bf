"""The commands of docs/launching.md, executed with stand-ins."""

import importlib.metadata
import json
import re
import shlex

import pytest

from tests.programs import run_python
from tests.test_docs import PAGES, blocks
from tests.tiny import REPOSITORY

# Each part of the page that shows commands: processes that they start.
STARTED = {
  'One host': 1,
  'Slurm': 2 * 8,
  'Containers': 1,
  'Kubernetes': 2,
  'A Cloud TPU slice': 2,
  'Any cloud': 1,
}


def shown() -> dict[str, str]:
  """Heading to script, of the page's parts with commands."""
  parts = re.split(r'^## (.*)$', PAGES['docs/launching.md'], flags=re.M)[1:]
  scripts = {
    heading: '\n'.join(blocks(text, 'sh'))
    for heading, text in zip(parts[::2], parts[1::2], strict=True)
  }
  return {k: v for k, v in scripts.items() if v}


@pytest.fixture(scope='module')
def launched(launch):
  """Heading to what came of it."""
  found = {heading: launch(script) for heading, script in shown().items()}
  tpus = 'kubectl apply --filename launch/jobset_tpu.yaml'
  return {**found, 'TPUs under Kubernetes': launch(tpus)}


@pytest.fixture(scope='module')
def wrong(launched):
  """What is wrong with each Python command, by the flags of the program."""
  calls = [call for x in launched.values() for call in x.of('python')]
  given = {
    'commands': [call['command'] for call in calls],
    **{what: [] for what in ('flags', 'keys', 'code')},
  }
  finished = run_python('-m', 'tests.pages', given=json.dumps(given))
  return json.loads(finished.stdout.splitlines()[-1])['commands']


def test_all_commands_of_the_page_are_known_here():
  assert set(shown()) == set(STARTED)
  files = {p.name for p in (REPOSITORY / 'launch').iterdir()}
  ran = ' '.join(shown().values()) + ' launch/jobset_tpu.yaml'
  assert files == set(re.findall(r'launch/([\w.]+)', ran))


@pytest.mark.parametrize('heading', [*STARTED, 'TPUs under Kubernetes'])
def test_every_process_gets_flags_that_the_program_takes(
  heading, launched, wrong
):
  result = launched[heading]
  assert result.code == 0, result.output
  commands = [call['command'] for call in result.of('python')]
  assert len(commands) == STARTED.get(heading, 4)
  for command in commands:
    assert command[:3] == ['python', '-m', 'emanet_jax.main']
    assert wrong[shlex.join(command)] == ''
    flags = ' '.join(command)
    assert re.search(r'--config[= ]configs/voc.py', flags)
    assert re.search(r'--workdir[= ]\S+/voc', flags)
    assert '--config.data.data_dir=' in flags


@pytest.mark.parametrize(
  'command',
  [
    'srun --cpus_per_task=8 true',
    'gcloud compute tpus tpu-vm ssh n --zone=z --workers=all --command=true',
    'docker run --network=host --detached image',
    'kubectl apply --file launch/jobset_gpu.yaml',
    'sky jobs launch --spot launch/skypilot.yaml',
  ],
)
def test_stand_ins_refuse_what_the_real_commands_refuse(command, launch):
  result = launch(command)
  assert result.code == 2
  assert 'unrecognized arguments' in result.output
  assert not result.calls


@pytest.mark.parametrize(
  ('gpus', 'given', 'told'),
  [
    ('8', {}, 'cuda,cpu'),
    ('8', {'JAX_PLATFORMS': 'cpu'}, 'cpu'),
    ('0', {}, None),
  ],
)
def test_a_host_with_gpus_uses_them_or_fails(gpus, given, told, launch):
  script = 'launch/host.sh --config configs/shapes.py'
  result = launch(script, STANDINS_GPUS=gpus, STANDINS_CODE='75', **given)
  [call] = result.of('python')
  assert call['environment'].get('JAX_PLATFORMS') == told
  assert result.code == 75


@pytest.mark.parametrize(
  ('heading', 'first'),
  [
    ('Kubernetes', 'emanet-host-0-0.emanet'),
    ('TPUs under Kubernetes', 'emanet-slice-0-0.emanet'),
  ],
)
def test_pods_wait_for_the_first_one(heading, first, launched):
  calls = [call['command'] for call in launched[heading].calls]
  starts = [i for i, command in enumerate(calls) if command[0] == 'python']
  assert starts
  assert all(calls[i - 1] == ['getent', 'hosts', first] for i in starts)


HARD = [
  '--config.loss.cross_entropy.class_weights=(1.0, 2.5)',
  '--workdir=gs://b/it\'s "$HOME" & \\ `date`; *',
  '--config.data.data_dir=',
]


def test_flags_and_variables_come_through_ssh_as_they_were_given(launch):
  line = shlex.join(['launch/tpu_slice.sh', 'run', *HARD])
  image = 'region-docker.pkg/project/emanet:tpu'
  own = {'LIBTPU_INIT_ARGS': '--xla_a=1 --xla_b="2"', 'JAX_X': 'y'}
  result = launch(line, NAME='n', ZONE='z', IMAGE=image, **own)
  assert result.code == 0, result.output
  [ssh] = [c for c in result.of('gcloud') if 'ssh' in c['command']]
  assert ssh['options']['worker'] == 'all'
  assert (ssh['options']['words'], ssh['options']['zone']) == (['n'], 'z')
  for call in result.of('python'):
    assert call['command'] == ['python', '-m', 'emanet_jax.main', *HARD]
    assert call['environment'] == own
  assert len(result.of('python')) == 2


def test_a_slice_runs_detached_and_is_followed_stopped_and_deleted(launched):
  calls = launched['A Cloud TPU slice'].calls
  names = [c['command'] for c in calls]
  [create] = [c for c in calls if c['command'][4:5] == ['create']]
  options = create['options']
  assert options['node_id'] == options['words'][0] == 'emanet'
  assert options['accelerator_type'] == 'v5litepod-16'
  assert options['spot']
  runs = [c['options'] for c in calls if c['command'][:2] == ['docker', 'run']]
  assert len(runs) == 2
  for run in runs:
    assert run['detach']
    assert run['privileged']
    assert (run['network'], run['name']) == ('host', 'emanet')
    assert run['words'][0] == 'REGISTRY/emanet:tpu'
  first = names.index(['docker', 'rm', 'emanet'])
  assert names[first + 1][:2] == ['docker', 'run']
  assert [n[1] for n in names if n[0] == 'docker'][-3:] == [
    'logs',  # of one host
    *('stop', 'stop'),
  ]
  assert names[-1][3:5] == ['queued-resources', 'delete']


def test_a_slice_says_what_it_can_do(launch):
  result = launch('launch/tpu_slice.sh')
  assert result.code == 1
  uses = re.findall(r'launch/tpu_slice.sh (\w+)', result.output)
  assert uses == ['create', 'state', 'run', 'tail', 'stop', 'delete']
  assert not result.calls


def test_the_image_is_built_of_extras_that_jax_has(launched):
  result = launched['Containers']
  installs = [call['command'][2:] for call in result.of('pip')]
  assert [x[-1] for x in installs] == ['jax[cuda13]', '.[gcs]']
  given = ' '.join(
    [PAGES['docs/launching.md']]
    + [p.read_text() for p in (REPOSITORY / 'launch').iterdir()]
  )
  named = {e for x in re.findall(r'JAX=([\w,]+)', given) for e in x.split(',')}
  named |= set(re.findall(r'jax\[(\w+)\]', given))
  assert named >= {'cpu', 'cuda12', 'cuda13', 'k8s', 'tpu'}
  assert named <= set(
    importlib.metadata.metadata('jax').get_all('Provides-Extra')
  )


def test_the_image_runs_python_for_a_user_without_rights():
  text = (REPOSITORY / 'launch' / 'Dockerfile').read_text()
  assert re.findall(r'^USER (.*)$', text, re.M) == ['1000']
  assert re.findall(r'^FROM (.*)$', text, re.M) == ['python:3.11-slim']
  package = (REPOSITORY / 'pyproject.toml').read_text()
  assert 'requires-python = ">=3.11"' in package
