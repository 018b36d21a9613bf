"""What docs/launching.md says of JAX's environment is so in this JAX."""

import pathlib
import re

import jax
import jax.numpy as jnp
import jaxlib
import pytest
from jax._src import config
from jax._src.compiler import get_compile_options
from jaxlib import xla_client

from tests.test_docs import PAGES

TOLD = re.findall(r'^\| `([A-Z_]+)=', PAGES['docs/launching.md'], re.M)


def test_jax_reads_the_variables_that_are_told():
  places = [
    *pathlib.Path(jax.__file__).parent.glob('_src/**/c*.py'),
    pathlib.Path(jaxlib.__file__).with_name('xla_client.py'),
  ]
  source = ''.join(path.read_text() for path in places)
  own = [name for name in TOLD if not name.startswith('NCCL_')]
  assert len(own) >= 7
  for name in own:
    assert hasattr(jax.config, name.lower()) or f"'{name}'" in (
      source.replace('"', "'")
    ), name


def test_the_share_of_memory_has_one_name_at_a_time(monkeypatch):
  monkeypatch.setenv('XLA_CLIENT_MEM_FRACTION', '0.9')
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  options = xla_client.generate_pjrt_gpu_plugin_options()
  assert (options['memory_fraction'], options['preallocate']) == (0.9, False)
  monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.9')
  with pytest.raises(ValueError, match='deprecated'):
    xla_client.generate_pjrt_gpu_plugin_options()


def test_a_step_compiled_ahead_of_time_is_not_profiled():
  """Why JAX_ENABLE_PGLE does nothing here."""
  x = jnp.ones(2)
  with config.enable_pgle(True), config.pgle_profiling_runs(1):
    step = jax.jit(lambda x: x + 1).lower(x).compile()
  assert step._executable.unsafe_call.pgle_profiler is None


@pytest.mark.parametrize(('level', 'number'), [('UNKNOWN', 0), ('O1', 19)])
def test_the_level_of_effort_reaches_the_compiler(level, number):
  """Of a step that is compiled ahead of time, too; the numbers are XLA's."""
  with config.optimization_level(level):
    options = get_compile_options(1, 1).executable_build_options
  assert options.optimization_level == number
