"""Places in a bucket: what is kept there, and what is refused."""

import errno
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from emanet_jax.errors import UserError
from emanet_jax.runtime import atomic, places, startup
from emanet_jax.runtime.ownership import own


@pytest.mark.parametrize('place', ['run', '/a/b', '~/x', pathlib.Path('a')])
def test_paths_of_this_machine_are_as_they_were(place):
  assert places.as_path(place) == pathlib.Path(place)
  assert type(places.as_path(place)) is type(pathlib.Path())
  assert not places.is_bucket(place)


def test_paths_in_a_bucket_stay_there(bucket):
  path = places.absolute(places.as_path('gs://bucket/a/run/')) / 'eval'
  assert str(path.expanduser()) == 'gs://bucket/a/run/eval'
  assert places.is_bucket(path)
  assert places.is_bucket(path.parent.parent)


@pytest.mark.parametrize('place', ['gs://', 'gs:/b/c', 's3://b/c', 'GS://b/c'])
def test_other_urls_are_refused(place):
  with pytest.raises(UserError, match='is no path of this machine: mount it'):
    places.as_path(place)


def test_what_is_not_installed_is_told(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'^gs://b/run: .* pip install gcsfs$'):
    places.as_path('gs://b/run')
  assert places.as_path('run') == pathlib.Path('run')


def test_whether_a_bucket_can_be_written_to_is_seen_before(bucket):
  places.check_folder('gs://bucket/checked')
  assert bucket.below('checked') == {}
  with pytest.raises(UserError, match=r'^gs://none/run cannot be used: .*NotF'):
    places.check_folder('gs://none/run')
  with pytest.raises(UserError, match=r'run\[1\]: gcsfs takes the signs'):
    places.check_folder('gs://bucket/run[1]')
  bucket.refused.add('POST')
  try:
    with pytest.raises(UserError, match=r'cannot be used: .*Forbidden'):
      places.check_folder('gs://bucket/checked')
  finally:
    bucket.refused.clear()


def test_a_file_is_there_completely_or_not_at_all(bucket):
  path = places.as_path('gs://bucket/atomic/new/a.png')
  with pytest.raises(OSError, match='full'):
    fill(path)
  assert bucket.below('atomic') == {}
  with atomic.replacing(str(path)) as temporary:
    temporary.write_bytes(b'content')
  atomic.write(path.parent / 'b.txt', 'ä\n')
  large = bytes(range(256)) * 25_000  # in several parts
  atomic.write(path.parent / 'c', large)
  assert bucket.below('atomic/new') == {
    'a.png': b'content',
    'b.txt': 'ä\n'.encode(),
    'c': large,
  }


def test_a_bucket_that_is_lost_is_told_in_one_line(bucket):
  bucket.refused.add('POST')
  try:
    with pytest.raises(UserError, match=r'^gs://bucket/a.txt cannot be used'):
      atomic.write('gs://bucket/a.txt', b'content')
  finally:
    bucket.refused.clear()


def fill(path):
  with atomic.replacing(path) as temporary:
    temporary.write_bytes(b'half')
    raise OSError(errno.ENOSPC, 'full')


def test_that_nobody_is_held_off_is_told(bucket, caplog):
  with own('gs://bucket/owned'), own('gs://bucket/owned'):
    pass
  assert 'gs://bucket/owned is in a bucket, which has no locks' in caplog.text
  assert bucket.below('owned') == {}


@pytest.fixture
def no_kept_programs():
  """JAX's folder of programs and its options are as before, afterwards."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_enable_xla_caches',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_programs_are_kept_in_a_bucket(bucket, no_kept_programs):
  startup.cache_compilations('gs://bucket/programs')
  hits = []
  jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
  hit = '/jax/compilation_cache/cache_hits'
  for expected in (0, 1):
    jax.clear_caches()
    jax.jit(lambda x: x @ x)(jnp.ones((7, 7))).block_until_ready()
    assert (hits.count(hit) > 0) == expected
  place = jax.config.jax_compilation_cache_dir
  assert place.startswith('gs://bucket/programs/')
  assert bucket.below(place.removeprefix('gs://bucket/'))
  # XLA has no way into buckets, and would end at the first program of a GPU.
  assert jax.config.jax_persistent_cache_enable_xla_caches == 'none'
