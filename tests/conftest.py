"""Four CPU devices in every test, so that sharding is exercised anywhere."""

import functools
import os

import jax
import numpy as np
import pytest

jax.config.update('jax_num_cpu_devices', 4)


@pytest.fixture(scope='session', autouse=True)
def _own_cache(tmp_path_factory):
  """Programs that tests start keep nothing in the user's home."""
  folder = tmp_path_factory.getbasetemp().parent / 'programs'
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)


@pytest.fixture(scope='session')
def quick_jit():
  """`jax.jit` that compiles tiny networks in half the time."""
  options = {'xla_backend_optimization_level': 0}
  return functools.partial(jax.jit, compiler_options=options)


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
