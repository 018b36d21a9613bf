"""Four CPU devices in every test, and programs that compile quickly, once.

Compiling is most of what the tests do. XLA does it quickly here (`xla_flags`),
and compiled programs are kept for the session, which all of its processes
share. What tests start as programs of their own compile as users' do, unless
they say otherwise.
"""

import gc
import os

import fsspec
import jax
import numpy as np
import pytest

from emanet_jax.runtime import startup
from tests.bucket import environment, serving
from tests.forked import commands  # noqa: F401, a fixture
from tests.xla_flags import QUICKLY

jax.config.update('jax_num_cpu_devices', 4)
# Programs do not tell of each operation which lines it comes from: a tenth of
# the time until they are compiled.
jax.config.update('jax_traceback_in_locations_limit', 0)


def _start_jax_quickly() -> None:
  """Starts JAX with flags that it reads only then, and programs inherit not."""
  before = os.environ.get('XLA_FLAGS')
  os.environ['XLA_FLAGS'] = f'{before or ""} {QUICKLY}'
  jax.devices()
  del os.environ['XLA_FLAGS']
  if before is not None:
    os.environ['XLA_FLAGS'] = before


_start_jax_quickly()


# Files that take minutes, the longest first: with several processes, none of
# them is left to be run alone at the end.
LONGEST = (
  *('test_readme', 'test_resume', 'test_step', 'test_views', 'test_parity'),
  *('test_segmenter', 'test_benchmark_scaling', 'test_old_workdirs'),
  *('test_evaluate', 'test_multiprocess', 'test_predict', 'test_export'),
  'test_bucket_run',
)


def pytest_collection_modifyitems(items):
  def rank(item):
    name = item.path.stem
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)

  items.sort(key=rank)


def pytest_collection_finish():
  # What was imported and collected stays: to look through it again and again
  # for garbage takes a twentieth of the time.
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope='session', autouse=True)
def _own_cache(tmp_path_factory, worker_id):
  """Programs are kept for this session alone, not in the user's home."""
  base = tmp_path_factory.getbasetemp()
  base = base if worker_id == 'master' else base.parent
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(base / 'programs')
  jax.config.update('jax_compilation_cache_dir', str(base / 'quick_programs'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'


@pytest.fixture(scope='session')
def bucket():
  """The bucket gs://bucket of this process and those that it starts."""
  with serving() as bucket, pytest.MonkeyPatch.context() as patch:
    for name, value in environment(bucket).items():
      patch.setenv(name, value)
    options = fsspec.config.conf.setdefault('gcs', {})  # read from these before
    patch.setitem(options, 'token', 'anon')
    yield bucket


@pytest.fixture(scope='module', autouse=True)
def _forget_programs():
  """A file's compiled programs would stay in memory for all others."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='module')
def keep_programs():
  """Runs in this process keep what they traced and compiled for the next."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(startup, 'give_back_memory', lambda: None)
    yield


@pytest.fixture(scope='session')
def draw_variables():
  """Returns a function (model, image shape) -> variables drawn by NumPy.

  Sized like freshly initialised ones, and drawn in no time where JAX compiles
  for seconds; nothing is 0 or 1 that could hide a missing factor.
  """

  def draw(model, shape=(1, 33, 33, 3)):
    rng = np.random.default_rng(0)

    def leaf(path, abstract):
      value = rng.normal(size=abstract.shape)
      name = path[-1].key
      if name == 'kernel':
        value *= np.sqrt(2 / np.prod(abstract.shape[:-1]))
      elif name in ('scale', 'var'):
        value = 1 + 0.1 * np.tanh(value)
      elif name == 'mu':
        value /= np.linalg.norm(value, axis=-1, keepdims=True)
      else:
        value *= 0.1
      return np.float32(value)

    tree = jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, train=False),
      jax.ShapeDtypeStruct(shape, np.float32),
    )
    tree = {k: v for k, v in tree.items() if k != 'intermediates'}
    return jax.tree.map_with_path(leaf, tree)

  return draw
