"""What contests measure of this package: each function prepares a subject."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emanet_jax.config import default_config
from emanet_jax.models import flops
from emanet_jax.models.ema_unit import EMAUnit
from emanet_jax.models.segmenter import Segmenter, create_model
from emanet_jax.runtime import startup
from emanet_jax.state import train_state
from emanet_jax.tools.benchmark.contest import Subject
from emanet_jax.training.losses import create_loss
from emanet_jax.training.optimizers import create_optimizer
from emanet_jax.training.step import train_step

CLASSES = 21
LEARNING_RATE = 0.009
_PEAK_SIZE = {'cpu': 4096, 'gpu': 8192, 'tpu': 8192}


def forward(
  depth: int,
  batch: int,
  size: int,
  dtype: str,
  convolution: str = 'fast',
  head: str = 'ema',
  output_stride: int = 8,
) -> Subject:
  """The network's evaluation: normalised images to logits at their size."""
  startup.keep_freed_memory()
  model, variables = network(
    depth, dtype, False, convolution, head, output_stride
  )
  image = _normal((batch, size, size, 3))
  run, about = _compile(
    jax.jit(lambda variables, x: model.apply(variables, x)), variables, image
  )
  about['flops'] = flops.of_evaluation(model, variables, image)
  return _subject(lambda: run(variables, image), about)


def train(
  depth: int,
  batch: int,
  size: int,
  dtype: str,
  remat: bool,
  convolution: str = 'fast',
  head: str = 'ema',
  output_stride: int = 8,
) -> Subject:
  """A training step as training makes it, on a batch that is there already."""
  startup.keep_freed_memory()
  model, variables = network(
    depth, dtype, remat, convolution, head, output_stride
  )
  config = default_config()
  config.optimizer.learning_rate = LEARNING_RATE
  config.optimizer.poly_power = 0.0  # the same rate in each step
  tx, _ = create_optimizer(config.optimizer, 1, model.frozen_params())
  params = variables.pop('params')
  state = train_state.TrainState(
    jnp.zeros((), jnp.int32), params, variables, jax.jit(tx.init)(params)
  )
  image = _normal((batch, size, size, 3))
  label = np.random.default_rng(1).integers(0, CLASSES, image.shape[:3])
  data = {'image': image, 'label': jnp.asarray(label, jnp.int32)}
  rng = jax.random.key(0)
  step = functools.partial(
    train_step,
    model=model,
    tx=tx,
    loss_fn=create_loss(config.loss, CLASSES),
  )
  run, about = _compile(jax.jit(step, donate_argnums=0), state, data, rng)
  # Gradients of input and filter cost what the forward pass does.
  about['flops'] = 3 * flops.of_evaluation(model, state.variables, image)

  def once():
    nonlocal state
    state, metrics = run(state, data, rng)
    return state, metrics

  return _subject(once, about)


def em(batch: int, size: int, channels: int, dtype: str) -> Subject:
  """The EM attention unit's evaluation, on features [b, size, size, c]."""
  startup.keep_freed_memory()
  unit = EMAUnit()
  x = _normal((batch, size, size, channels)).astype(dtype)
  variables = draw(
    jax.eval_shape(
      functools.partial(unit.init, train=False), jax.random.key(0), x
    )
  )
  apply = functools.partial(unit.apply, train=False)
  run, about = _compile(jax.jit(apply), variables, x)
  about['flops'] = flops.count(apply, variables, x)
  return _subject(lambda: run(variables, x), about)


def peak(dtype: str) -> Subject:
  """A large square product: the most that can be hoped for."""
  startup.keep_freed_memory()
  size = _PEAK_SIZE[jax.default_backend()]
  a = _normal((size, size)).astype(dtype)
  precision = None if dtype == 'bfloat16' else jax.lax.Precision.HIGHEST
  product = functools.partial(jnp.matmul, precision=precision)
  run, about = _compile(jax.jit(product), a, a)
  about['flops'] = flops.count(product, a, a)
  return _subject(lambda: run(a, a), about)


def network(
  depth: int,
  dtype: str,
  remat: bool = False,
  convolution: str = 'fast',
  head: str = 'ema',
  output_stride: int = 8,
) -> tuple[Segmenter, dict]:
  """The default network, or with another head, and variables as at a start."""
  config = default_config().model
  config.head.name = head
  config.backbone.output_stride = output_stride
  config.backbone.depth, config.dtype = depth, dtype
  config.backbone.remat, config.convolution = remat, convolution
  model = create_model(config, CLASSES)
  return model, draw_variables(model)


def draw_variables(model: Segmenter) -> dict:
  """Variables like freshly initialised ones, without compiling anything."""
  return draw(
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 65, 65, 3)))
  )


def draw(shapes: dict) -> dict:
  """Variables of these shapes, drawn on the host: nothing to compile.

  What a leaf is, its name tells.
  """
  rng = np.random.default_rng(0)

  def leaf(path, leaf):
    name = path[-1].key
    if name in ('scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if name in ('bias', 'mean', 'gamma'):
      return np.zeros(leaf.shape, leaf.dtype)
    value = rng.standard_normal(leaf.shape, np.float32)
    if name == 'kernel':
      return value * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
    return value / np.linalg.norm(value, axis=-1, keepdims=True)

  shapes = {k: v for k, v in shapes.items() if k != 'intermediates'}
  return jax.tree.map(jnp.asarray, jax.tree.map_with_path(leaf, shapes))


def planned_bytes(compiled: jax.stages.Compiled) -> int:
  """What XLA plans to hold for a program: arguments, results, temporaries."""
  memory = compiled.memory_analysis()
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def _normal(shape: tuple[int, ...]) -> jax.Array:
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.standard_normal(shape, np.float32))


def _compile(function, *args) -> tuple[Callable, dict[str, Any]]:
  """The compiled function; how long that took and how much it will hold."""
  counted = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: counted.append(event)
  )
  start = time.perf_counter()
  compiled = function.lower(*args).compile()
  seconds = time.perf_counter() - start
  event = '/jax/core/compile/backend_compile_duration'
  return compiled, {
    'framework': f'JAX {jax.__version__}',
    'device': jax.devices()[0].device_kind,
    'compile_seconds': seconds,
    'compilations': counted.count(event),
    'planned_bytes': planned_bytes(compiled),
  }


def _subject(once: Callable, about: dict[str, Any]) -> Subject:
  startup.give_back_memory()  # as training does before its first step
  device = jax.devices()[0]
  used = None
  if device.platform != 'cpu':
    used = lambda: device.memory_stats()['peak_bytes_in_use']  # noqa: E731
  return Subject(lambda: jax.block_until_ready(once()), about, used)
