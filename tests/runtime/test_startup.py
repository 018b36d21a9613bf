"""What programs set of their process: kept programs, kept memory."""

import os
import pathlib
import platform
import types

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from emanet_jax.config import default_config
from emanet_jax.runtime import sharding, startup
from emanet_jax.state.train_state import TrainState
from emanet_jax.training import step as training_step
from emanet_jax.training.compile import compile_step
from tests.programs import run_python

PAGE = os.sysconf('SC_PAGE_SIZE')


def run(program, **environment):
  return run_python('-c', program, **environment).stdout.split('\n')[:-1]


SQUARE = """
import jax, jax.numpy as jnp
from emanet_jax.runtime import startup
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
startup.cache_compilations(FOLDER)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: x @ x)(jnp.ones((7, 7)))
print(jax.config.jax_compilation_cache_dir)
print(hits.count('/jax/compilation_cache/cache_hits'))
"""


def test_a_second_start_finds_what_the_first_compiled(tmp_path):
  program = SQUARE.replace('FOLDER', repr(str(tmp_path)))
  first = run(program, JAX_COMPILATION_CACHE_DIR=None)
  second = run(program, JAX_COMPILATION_CACHE_DIR=None)
  assert first[0] == second[0]
  # Machines with other processors have another folder.
  assert first[0].startswith(f'{tmp_path}/{platform.machine()}-')
  assert first[1] == '0'
  assert int(second[1]) > 0


@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty'])
def test_a_damaged_program_is_replaced(tmp_path, damage):
  """JAX alone compiles it anew at each start, and leaves it as it is."""
  program = SQUARE.replace('FOLDER', repr(str(tmp_path)))
  place = run(program, JAX_COMPILATION_CACHE_DIR=None)[0]
  (kept,) = pathlib.Path(place).glob('jit__lambda*-cache')
  whole = kept.read_bytes()
  middle = len(whole) // 2
  changed = {
    'flip': whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :],
    'cut': whole[:middle],
    'empty': b'',
  }
  kept.write_bytes(changed[damage])
  hits = [
    int(run(program, JAX_COMPILATION_CACHE_DIR=None)[1]) for _ in range(2)
  ]
  assert hits[1] == hits[0] + 1
  assert kept.read_bytes() != changed[damage]


@pytest.mark.parametrize('told', [True, False])
def test_what_jax_was_told_stays(tmp_path, told):
  """'' keeps nothing, unless JAX has a folder already."""
  other = str(tmp_path / 'other') if told else None
  folder = str(tmp_path / 'ours') if told else ''
  program = SQUARE.replace('FOLDER', repr(folder))
  (place, _) = run(program, JAX_COMPILATION_CACHE_DIR=other)
  assert place == str(other)
  assert not (tmp_path / 'ours').exists()


FAULTS = """
import resource
from emanet_jax.runtime import startup
if KEEP: startup.keep_freed_memory()
import jax, jax.numpy as jnp
x = jnp.ones((4000, 4000))
work = jax.jit(lambda x: jnp.sin(x) + 1)
for _ in range(20): work(x).block_until_ready()  # until all places are had
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): work(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='not glibc')
def test_memory_is_not_taken_anew():
  """Each step takes 64 MB, 15625 pages."""
  (anew,) = run(FAULTS.replace('KEEP', 'False'))
  (kept,) = run(FAULTS.replace('KEEP', 'True'))
  assert int(anew) > 5 * 15000
  assert int(kept) < 500


@pytest.mark.parametrize(
  ('used', 'trimmed'),
  [
    ([(100, 0)], 1),
    ([(500, 0)], 0),
    ([(100, 400)], 0),
    ([(500, 0), (100, 0)], 0),
  ],
)
def test_memory_that_is_kept_is_bounded(used, trimmed, monkeypatch):
  """By twice the most that was in use, and 256 MB: 1024 MB are held."""
  used, trims = iter(used), []

  class Stop(Exception):
    pass

  def mallinfo2():
    for heap, mapped in used:
      return types.SimpleNamespace(uordblks=heap << 20, hblkhd=mapped << 20)
    raise Stop

  statm = types.SimpleNamespace(
    read_text=lambda: f'9999999 {(1024 << 20) // PAGE + 77} 77 1 0 9 0\n'
  )
  monkeypatch.setattr(startup, 'Path', lambda _: statm)
  monkeypatch.setattr(startup.time, 'sleep', lambda seconds: None)
  libc = types.SimpleNamespace(mallinfo2=mallinfo2, malloc_trim=trims.append)
  with pytest.raises(Stop):
    startup._bound_memory(libc)
  assert trims == [0] * trimmed


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='not glibc')
def test_the_allocator_tells_what_is_in_use():
  (used,) = run(
    'import ctypes, numpy as np\n'
    'from emanet_jax.runtime import startup\n'
    'libc = ctypes.CDLL(None)\n'
    'libc.mallopt(-4, 0)\n'  # all from the heap
    'libc.mallinfo2.restype = startup._MallocInfo\n'
    'before = libc.mallinfo2().uordblks\n'
    'x = np.ones(100_000_000, np.uint8)\n'
    'print(libc.mallinfo2().uordblks - before)\n'
  )
  assert 100_000_000 <= int(used) < 101_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='not glibc')
def test_small_pieces_go_back_when_told():
  """100 MB in pieces of 1 KB, freed by a thread, as compilers do."""
  held, left = run(
    'import threading\n'
    'from pathlib import Path\n'
    'from emanet_jax.runtime import startup\n'
    'def megabytes():\n'
    '  status = Path("/proc/self/status").read_text()\n'
    '  return int(status.split("RssAnon:")[1].split()[0]) // 1024\n'
    'startup.keep_freed_memory()\n'
    'top = []\n'
    'def work():\n'
    '  pieces = [bytes(1024) for _ in range(100_000)]\n'
    '  top.append(bytes(1024))\n'
    'before = megabytes()\n'
    'thread = threading.Thread(target=work)\n'
    'thread.start()\n'
    'thread.join()\n'
    'print(megabytes() - before)\n'
    'startup.give_back_memory()\n'
    'print(megabytes() - before)\n'
  )
  assert int(held) > 90
  assert int(left) < 30


def test_training_drops_what_its_compilation_left(monkeypatch):
  """What was traced is gone once the step is compiled: it is traced again."""
  traced = []
  function = jax.jit(lambda x: traced.append(x))
  for _ in range(2):
    function(1)
  assert len(traced) == 1

  def step(state, batch, rng, **unused):
    return state, {}

  monkeypatch.setattr(training_step, 'train_step', step)
  compile_step(
    config=default_config(),
    model=nn.Dense(1),
    tx=optax.identity(),
    loss_fn=lambda logits, label: {},
    mesh=sharding.create_mesh(jax.devices()[:1]),
    state=TrainState(np.float32(0), {}, {}, {}),
    rng=jax.random.key(0),
  )
  function(1)
  assert len(traced) == 2


@pytest.mark.parametrize('platforms', ['cuda,cpu', 'tpu'])
def test_hosts_of_accelerators_keep_their_allocator(platforms):
  program = (
    'import ctypes\n'
    'from emanet_jax.runtime import startup\n'
    'ctypes.CDLL = None\n'  # so that a use of it fails
    'startup.keep_freed_memory()\n'
    'print("left alone")\n'
  )
  assert run(program, JAX_PLATFORMS=platforms) == ['left alone']


@pytest.mark.parametrize('place', ['~/programs', '/proc/programs'])
def test_a_folder_that_cannot_be_is_no_error(place):
  """No home: a container run as somebody it does not know."""
  program = (
    'import os, pwd\n'
    'os.environ.pop("HOME", None)\n'
    'pwd.getpwuid = lambda _: {}["nobody"]\n'
    + SQUARE.replace('FOLDER', repr(place))
  )
  kept, _ = run(program, JAX_COMPILATION_CACHE_DIR=None)
  assert kept == 'None'
