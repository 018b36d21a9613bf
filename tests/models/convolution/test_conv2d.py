"""The convolution against the library's, and the autodiff of that."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.models.convolution import (
  atrous,
  conv2d,
  filter_gradient,
  grouped,
  winograd,
)
from emanet_jax.runtime import sharding
from tests.numerics import (
  normal,
  plain_conv,
  relative_error,
  with_gradients,
)

NARROW, WIDE = 5, filter_gradient._ROW_CHANNELS + 1


def check(size, channels, features, stride, dilation, groups=1):
  x = np.float32(normal(2, 9, 12, channels))
  shape = size, size, channels // groups, features
  kernel = np.float32(normal(*shape, seed=1))
  conv = conv2d.conv2d if groups == 1 else grouped.grouped_conv2d

  def jitted(function):
    options = {'stride': stride, 'dilation': dilation}
    function = functools.partial(function, **options)
    return jax.jit(lambda *inputs: with_gradients(function, inputs))

  got = jitted(conv)(x, kernel)
  with jax.enable_x64(True):
    expected = jitted(plain_conv)(np.float64(x), np.float64(kernel))
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize(
  ('size', 'channels', 'features', 'stride', 'dilation'),
  [
    *((1, *shape, s, 1) for shape in ((5, 6), (6, 5)) for s in (1, 2)),
    *((3, NARROW, 6, *how) for how in ((1, 1), (2, 1), (2, 2), (1, 4))),
    *((3, WIDE, 6, *how) for how in ((1, 1), (2, 1), (1, 2), (2, 4))),
    # Rows, then columns, too short for any tap but the middle one.
    *((3, channels, 6, 1, d) for channels in (NARROW, WIDE) for d in (9, 12)),
    *((7, channels, 6, 2, 1) for channels in (3, 13)),
    (7, 3, 6, 1, 2),
    (3, 512, 512, 1, 4),
  ],
)
def test_convolution_and_its_gradients(
  size, channels, features, stride, dilation
):
  check(size, channels, features, stride, dilation)


@pytest.mark.parametrize(
  ('channels', 'features', 'groups'),
  [(6, 6, 6), (6, 12, 6), (6, 9, 3), (128, 128, 32)],
  ids=['depthwise', 'multiplied', 'one block', 'blocks'],
)
@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (1, 4), (2, 1)])
def test_convolution_in_groups_and_its_gradients(
  channels, features, groups, stride, dilation
):
  check(3, channels, features, stride, dilation, groups)


def test_the_cases_above_take_every_way(monkeypatch):
  taken = []
  ways = {
    '_whole': conv2d,
    '_tap_by_tap': conv2d,
    '_winograd': conv2d,
    '_of_taps': filter_gradient,
    '_of_winograd': filter_gradient,
  }
  for name, module in ways.items():
    function = getattr(module, name)

    def noted(*args, _name=name, _function=function, **kwargs):
      taken.append(_name)
      return _function(*args, **kwargs)

    monkeypatch.setattr(module, name, noted)
  check(3, 7, 6, 1, 1)
  assert set(taken) >= {'_tap_by_tap', '_of_taps'}
  taken.clear()
  monkeypatch.setattr(conv2d, '_DENSE', 0.5)
  check(3, 8, 6, 1, 1)
  assert set(taken) >= {'_whole', '_of_taps'}
  assert '_tap_by_tap' not in taken
  taken.clear()
  monkeypatch.setattr(winograd, '_TILES', 1)
  check(3, 256, 257, 1, 1)
  assert set(taken) >= {'_winograd', '_of_winograd'}
  assert not set(taken) & {'_tap_by_tap', '_of_taps'}


@pytest.mark.parametrize(
  ('size', 'shape', 'stride', 'dilation'),
  [
    *((1, (9, 12), stride, 1) for stride in (1, 2)),
    *((3, (9, 12), *how) for how in ((1, 1), (2, 1), (1, 2), (1, 4), (2, 2))),
    *((3, (17, 13), 1, d) for d in (5, 16, 18)),
    (7, (9, 12), 2, 1),
  ],
)
def test_accelerators_filter_gradient_is_the_same(
  size, shape, stride, dilation
):
  """What GPUs and TPUs run, run here, in float64."""
  options = {'size': size, 'stride': stride, 'dilation': dilation}
  with jax.enable_x64(True):
    x = normal(2, *shape, 6)
    dy = normal(2, *(-(-n // stride) for n in shape), 7, seed=1)
    _, vjp = jax.vjp(
      lambda kernel: plain_conv(x, kernel, stride, dilation),
      jnp.zeros((size, size, 6, 7)),
    )
    (expected,) = vjp(dy)
    run = functools.partial(filter_gradient._of_library, **options)
    got = jax.jit(run)(x, dy)
    assert got.dtype == jnp.float64
    assert relative_error(got, expected) < 1e-13


@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 4)])
def test_accelerators_gradients_in_groups_are_the_same(stride, dilation):
  """What GPUs and TPUs run, run here, in float64."""
  options = {'stride': stride, 'dilation': dilation}
  with jax.enable_x64(True):
    x, kernel = normal(2, 9, 12, 6), normal(3, 3, 2, 9, seed=1)
    conv = functools.partial(plain_conv, **options)
    value, *expected = jax.jit(lambda *inputs: with_gradients(conv, inputs))(
      x, kernel
    )
    run = functools.partial(filter_gradient.library_gradients, **options)
    got = jax.jit(run)(x, kernel, normal(*value.shape, seed=9))
  for ours, theirs in zip(got, expected, strict=True):
    assert relative_error(ours, theirs) < 1e-13


@pytest.mark.parametrize(
  ('size', 'shape', 'stride', 'dilation'),
  [
    *((3, (9, 12), *how) for how in ((1, 1), (2, 1), (1, 2), (2, 2))),
    (3, (17, 17), 2, 1),
    (5, (9, 12), 2, 1),
  ],
)
def test_patches_are_the_same(size, shape, stride, dilation):
  """What TPUs run of an image, run here, in float64."""
  with jax.enable_x64(True):
    inputs = normal(2, *shape, 3), normal(size, size, 3, 7, seed=1)
    expected, got = (
      jax.jit(
        lambda *inputs, function=function: with_gradients(
          functools.partial(function, stride=stride, dilation=dilation), inputs
        )
      )(*inputs)
      for function in (plain_conv, atrous._of_patches)
    )
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs) < 1e-13


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
  ('platform', 'channels', 'patches'),
  [('tpu', 3, True), ('tpu', 14, True), ('tpu', 15, False), ('cuda', 3, False)],
)
def test_tpus_convolve_by_patches_of_up_to_128_values(
  platform, channels, patches, stride
):
  """Forward, and in the gradient of the kernel."""
  x = jnp.zeros((1, 9, 9, channels))
  kernel = jnp.zeros((3, 3, channels, 64))

  def gradient(x, kernel):
    conv = functools.partial(conv2d.conv2d, stride=stride)
    return jax.grad(lambda kernel: jnp.square(conv(x, kernel)).sum())(kernel)

  lowered = jax.jit(gradient).trace(x, kernel)
  text = lowered.lower(lowering_platforms=(platform,)).as_text()
  shapes = re.findall(
    r'stablehlo.convolution.*tensor<([\dx]+)xf32>, tensor<([\dx]+)xf32>\)'
    r' -> tensor<([\dx]+)xf32>',
    text,
  )
  assert len(shapes) == 2
  taps = {f'3x3x{channels}x64', f'{channels}x3x3x64'}
  matrix = {f'1x1x{9 * channels}x64', f'{9 * channels}x1x1x64'}
  for convolved in shapes:
    assert bool(set(convolved) & matrix) == patches, convolved
    assert bool(set(convolved) & taps) != patches, convolved


def test_images_of_any_size_can_be_exported():
  x = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 3'), jnp.float32)
  kernel = normal(3, 3, 3, 8).astype(np.float32)
  conv = jax.jit(lambda x: conv2d.conv2d(x, kernel, stride=2))
  exported = jax.export.export(conv, platforms=('cpu', 'tpu'))(x)
  image = normal(2, 9, 12, 3).astype(np.float32)
  np.testing.assert_allclose(
    exported.call(image), plain_conv(image, kernel, 2, 1), atol=1e-5
  )


def test_padding_is_left_out():
  """At dilation 12 on 9×12 only the middle tap has anything to read."""
  taps = atrous.taps(12, 3, 1, 12)
  assert taps == [None, (slice(0, 12), slice(0, 12, 1)), None]
  for length in (1, 5, 8, 9):
    for stride in (1, 2):
      for dilation in (1, 2, 3, 8):
        outputs = range(-(-length // stride))
        for tap, found in enumerate(atrous.taps(length, 3, stride, dilation)):
          reads = {o: o * stride + (tap - 1) * dilation for o in outputs}
          reads = {o: i for o, i in reads.items() if 0 <= i < length}
          if found is None:
            assert not reads
          else:
            out, read = found
            assert list(reads) == list(range(length))[out]
            assert list(reads.values()) == list(range(length))[read]


@pytest.mark.parametrize('size', [1, 3])
def test_bfloat16_convolution_keeps_the_kernels_precision(size):
  x = jnp.asarray(normal(2, 9, 12, 5), jnp.bfloat16)
  kernel = np.float32(normal(size, size, 5, 6, seed=1))
  kernel = np.asarray(jnp.asarray(kernel, jnp.bfloat16), np.float32)
  out, pullback = jax.vjp(conv2d.conv2d, x, kernel)
  cotangent = jnp.asarray(normal(*out.shape, seed=2), jnp.bfloat16)
  dx, dkernel = pullback(cotangent)
  exact, exact_pullback = jax.vjp(
    lambda x, k: plain_conv(x, k, 1, 1), x.astype(jnp.float32), kernel
  )
  exact_dx, exact_dkernel = exact_pullback(cotangent.astype(jnp.float32))
  assert (out.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
  assert dkernel.dtype == jnp.float32
  assert relative_error(out.astype(jnp.float32), exact) < 0.01
  assert relative_error(dx.astype(jnp.float32), exact_dx) < 0.01
  assert relative_error(dkernel, exact_dkernel) < 1e-5


@pytest.mark.parametrize(
  ('channels', 'dilation', 'groups'),
  [(6, 4, 1), (256, 1, 1), (6, 4, 6), (64, 1, 32)],
  ids=['taps', 'winograd', 'depthwise', 'groups'],
)
def test_a_batch_over_devices_gives_the_same(
  channels, dilation, groups, monkeypatch
):
  """The parts that CPUs compile apart are partitioned, too."""
  monkeypatch.setattr(winograd, '_TILES', 1)
  x = np.float32(normal(4, 9, 9, channels))
  kernel = np.float32(normal(3, 3, channels // groups, channels, seed=1))
  mesh = sharding.create_mesh(jax.devices()[:4])
  conv = conv2d.conv2d if groups == 1 else grouped.grouped_conv2d
  function = functools.partial(conv, dilation=dilation)
  run = jax.jit(lambda *inputs: with_gradients(function, inputs))
  alone = run(x, kernel)
  spread = run(
    jax.device_put(x, sharding.batch_sharding(mesh)),
    jax.device_put(kernel, sharding.replicated(mesh)),
  )
  assert not spread[0].sharding.is_fully_replicated
  for got, expected in zip(spread, alone, strict=True):
    assert relative_error(got, expected) < 1e-6


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize(
  ('dtype', 'dilation'),
  [(jnp.bfloat16, 4), (jnp.float32, 1)],
  ids=['taps', 'winograd'],
)
def test_other_platforms_get_nothing_that_is_for_cpus(
  dtype, dilation, platform
):
  """CPUs' own ways would cost an accelerator its fast convolutions."""

  def lowered(platform):
    x = jax.ShapeDtypeStruct((8, 9, 9, 512), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)
    function = functools.partial(conv2d.conv2d, dilation=dilation)
    run = jax.jit(lambda *inputs: with_gradients(function, inputs))
    return run.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()

  cpu, other = lowered('cpu'), lowered(platform)
  assert 'inlineable' in cpu
  assert 'inlineable' not in other
  assert cpu.count('stablehlo.convolution') == 0
  # Forward, and the gradients of the input and of the filter.
  assert other.count('stablehlo.convolution') == 3


@pytest.mark.parametrize(('size', 'stride'), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_an_update_in_place_copies_no_kernel(size, stride):
  """XLA would, if the input's gradient could still need the old kernel."""
  layers, x = 8, jnp.zeros((1, 17, 17, 128))
  kernels = [jnp.zeros((size, size, 128, 128))] * layers

  def copied(conv):
    def loss(kernels):
      y = x
      for kernel in kernels:
        y = jnp.sin(conv(y, kernel))
      return y.sum()

    def update(kernels):
      gradients = jax.grad(loss)(kernels)
      return [k - g for k, g in zip(kernels, gradients, strict=True)]

    program = jax.jit(update, donate_argnums=0).lower(kernels).compile()
    return program.as_text().count(' copy(%kernels')

  assert copied(functools.partial(conv2d.conv2d, stride=stride)) == 0
  plain = functools.partial(plain_conv, stride=stride, dilation=1)
  assert copied(plain) == layers - 1  # all but that of the first layer


FORWARD = {
  'jvp': lambda f, x: jax.jvp(f, (x,), (x,)),
  'jitted': lambda f, x: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(x),
  'of a jitted one': lambda f, x: jax.jvp(jax.jit(f), (x,), (x,)),
  'linearized': lambda f, x: jax.linearize(f, x)[1](x),
  'linearized, jitted': lambda f, x: jax.linearize(jax.jit(f), x)[1](x),
  'mapped': lambda f, x: jax.vmap(lambda t: jax.jvp(f, (x,), (t,)))(x[None]),
  'jacfwd': lambda f, x: jax.jacfwd(lambda s: f(s * x))(1.0),
  'over reverse': lambda f, x: jax.jvp(
    jax.grad(lambda x: f(x).sum()), (x,), (x,)
  ),
}


@pytest.mark.parametrize('way', FORWARD)
@pytest.mark.parametrize('size', [1, 3])
def test_forward_mode_is_refused_with_the_switch_that_allows_it(way, size):
  x, kernel = normal(1, 5, 5, 2), normal(size, size, 2, 3)
  one, three = normal(3, 3, 1, 2), normal(3, 3, 1, 4)
  for function, argument in (
    (lambda x: grouped.grouped_conv2d(x, one), x),
    (lambda kernel: grouped.grouped_conv2d(x, kernel), three),
    (lambda x: conv2d.conv2d(x, kernel), x),
    (lambda kernel: conv2d.conv2d(x, kernel), kernel),
  ):
    with pytest.raises(TypeError, match=r"model\.convolution='flax'"):
      FORWARD[way](function, argument)


def test_reverse_mode_is_not_taken_for_it():
  x, kernel = normal(2, 5, 5, 2), normal(3, 3, 2, 3)

  def total(x):
    return (conv2d.conv2d(x, kernel) ** 2).sum()

  expected = jax.grad(total)(x)
  for gradient in (
    jax.jit(jax.grad(total))(x),
    jax.grad(jax.jit(total))(x),
    jax.grad(jax.checkpoint(total))(x),
    jax.vmap(jax.grad(total))(x[:, None])[:, 0],
    jax.vmap(jax.grad(jax.checkpoint(jax.jit(total))))(x[:, None])[:, 0],
    jax.jacrev(total)(x),
    jax.vjp(total, x)[1](1.0)[0],
  ):
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)
