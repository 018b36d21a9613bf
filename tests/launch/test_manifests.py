"""The manifests: their schema, and what becomes of their pods."""

import copy
import math
import sys
import types

import pytest
import yaml
from jax._src.clusters import k8s_cluster
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import (
  JobsetV1alpha2JobSet,
)

from tests.tiny import REPOSITORY

KINDS = ('gpu', 'tpu')


def documents(kind: str) -> list[dict]:
  text = (REPOSITORY / 'launch' / f'jobset_{kind}.yaml').read_text()
  return list(yaml.safe_load_all(text))


@pytest.fixture(params=KINDS)
def jobset(request):
  return documents(request.param)[0]


def job_of(jobset: dict) -> dict:
  [replicated] = jobset['spec']['replicatedJobs']
  return replicated['template']['spec']


def valid(jobset: dict) -> bool:
  """Whether it has the fields, of their types, that JobSet's schema has."""
  try:
    return JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset
  except ValueError:  # pydantic's
    return False


def test_it_fits_the_schema(jobset):
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert valid(jobset)


@pytest.mark.parametrize(
  ('place', 'key', 'value'),
  [
    (lambda x: job_of(x), 'parallelism', '2'),
    (lambda x: job_of(x), 'completion_mode', 'Indexed'),
    (lambda x: x['spec']['failurePolicy'], 'maxRestart', 3),
    (lambda x: job_of(x)['podFailurePolicy']['rules'][0], 'action', 'Retry'),
    (lambda x: job_of(x)['template']['spec']['containers'][0], 'arg', []),
  ],
)
def test_the_schema_finds_mistakes(jobset, place, key, value):
  changed = copy.deepcopy(jobset)
  place(changed)[key] = value
  assert not valid(changed)


def after(jobset: dict, code: int) -> str:
  """What JobSet does when a container ends so, by the rules of Kubernetes."""
  job = job_of(jobset)
  [rule] = job['podFailurePolicy']['rules']
  on = rule['onExitCodes']
  names = [c['name'] for c in job['template']['spec']['containers']]
  assert (on['operator'], on['containerName']) == ('In', *names)
  assert job['template']['spec']['restartPolicy'] == 'Never'  # it is wanted
  assert (rule['action'], job['backoffLimit']) == ('FailJob', 0)
  reason = (
    'PodFailurePolicy' if code in on['values'] else 'BackoffLimitExceeded'
  )
  for outer in jobset['spec']['failurePolicy']['rules']:
    if reason in outer['onJobFailureReasons']:
      return outer['action']
  return 'RestartJobSet'


@pytest.mark.parametrize('code', [75, 134, 137, 143])
def test_what_was_stopped_or_killed_starts_again(jobset, code):
  assert after(jobset, code) == 'RestartJobSet'
  assert jobset['spec']['failurePolicy']['maxRestarts'] >= 10


def test_a_mistake_of_the_user_is_not_repeated(jobset):
  assert after(jobset, 1) == 'FailJobSet'


def test_all_that_is_to_change_stands_on_top_and_is_used(jobset):
  variables = jobset['metadata']['annotations']
  rest = yaml.safe_dump(jobset['spec'], width=1000)
  variables = {k: v for k, v in variables.items() if '/' not in k}
  assert variables
  assert not [k for k, v in variables.items() if v not in rest]


def test_pods_have_time_to_save_and_memory_to_share(jobset):
  pod = job_of(jobset)['template']['spec']
  assert pod['terminationGracePeriodSeconds'] >= 120
  [container] = pod['containers']
  [name] = [
    m['name'] for m in container['volumeMounts'] if m['mountPath'] == '/dev/shm'
  ]
  volumes = {v['name']: v for v in pod['volumes']}
  assert volumes[name]['emptyDir']['medium'] == 'Memory'
  assert {m['name'] for m in container['volumeMounts']} == set(volumes)


def test_the_first_pod_is_of_the_only_job(jobset):
  [job] = jobset['spec']['replicatedJobs']
  assert jobset['spec']['coordinator'] == {'replicatedJob': job['name']}


def test_a_slice_has_as_many_hosts_as_its_topology():
  [jobset] = documents('tpu')
  job = job_of(jobset)
  pod = job['template']['spec']
  chips = int(pod['containers'][0]['resources']['limits']['google.com/tpu'])
  sides = pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
  assert chips * job['parallelism'] == math.prod(map(int, sides))


def test_jax_finds_the_pods_with_the_rights_that_they_have(monkeypatch):
  """JAX's own search, in pods as Kubernetes makes them of the manifest."""
  jobset, account, role, binding = documents('gpu')
  job = job_of(jobset)
  name = account['metadata']['name']
  assert job['template']['spec']['serviceAccountName'] == name
  assert binding['subjects'] == [{'kind': 'ServiceAccount', 'name': name}]
  assert binding['roleRef']['name'] == role['metadata']['name']
  asked = set()
  _pretend_kubernetes(monkeypatch, jobset, asked)
  found = []
  for index in range(job['completions']):
    monkeypatch.setenv('JOB_COMPLETION_INDEX', str(index))
    cluster = _fresh_cluster()
    assert cluster.is_env_present()
    found.append(
      (
        cluster.get_coordinator_address(None, None),
        cluster.get_process_count(),
        cluster.get_process_id(),
        cluster.get_local_process_id(),  # None: all GPUs of the host
      )
    )
  address = 'emanet-host-0-0.emanet:55527'
  assert found == [(address, 2, 0, None), (address, 2, 1, None)]
  allowed = {
    (group, resource, verb)
    for rule in role['rules']
    for group in rule['apiGroups']
    for resource in rule['resources']
    for verb in rule['verbs']
  }
  assert asked == allowed


def _fresh_cluster():
  """JAX's class, which keeps what it found for the life of a process."""
  for name in ('_pod', '_job', '_controller'):
    vars(k8s_cluster.K8sCluster)[name].__func__.cache_clear()
  return k8s_cluster.K8sCluster


def _pretend_kubernetes(monkeypatch, jobset, asked):
  """A module `kubernetes` for one pod, which notes what it is asked for."""
  of, name = types.SimpleNamespace, jobset['metadata']['name']
  job_name = f'{name}-{jobset["spec"]["replicatedJobs"][0]["name"]}-0'

  class Core:
    def list_namespaced_pod(self, namespace, field_selector):
      asked.add(('', 'pods', 'list'))
      owner = of(controller=True, kind='Job')
      meta = of(labels={'job-name': job_name}, owner_references=[owner])
      return of(items=[of(metadata=meta, spec=of(subdomain=name))])

  class Batch:
    def read_namespaced_job(self, name, namespace):
      assert name == job_name
      asked.add(('batch', 'jobs', 'get'))
      labels = {'jobset.sigs.k8s.io/jobset-name': jobset['metadata']['name']}
      spec = of(parallelism=job_of(jobset)['parallelism'])
      return of(metadata=of(name=name, labels=labels), spec=spec)

  module = types.ModuleType('kubernetes')
  module.config = of(load_incluster_config=lambda: None)
  module.client = of(
    CoreV1Api=Core, BatchV1Api=Batch, exceptions=of(ApiException=OSError)
  )
  monkeypatch.setitem(sys.modules, 'kubernetes', module)
  monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
  monkeypatch.setenv('HOSTNAME', 'localhost')
  monkeypatch.setattr(
    k8s_cluster.K8sCluster, '_namespace', classmethod(lambda cls: 'default')
  )
