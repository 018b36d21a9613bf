"""The gradient of a convolution's filter.

On CPUs it is what it is on paper: for each tap of the kernel, the product of
the shifted input with the output's gradient, where they meet; or Winograd's way
to the same, where that multiplies less. Accelerators have fast filter gradients
in their libraries, but not of dilated convolutions: those are cut into the many
small convolutions without dilation that they consist of (space to batch), whose
gradients these libraries have.

Over several CPU devices the features are gathered for the taps: right, but
slow.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution import winograd
from emanet_jax.models.convolution.atrous import (
  library_conv,
  library_conv_or_patches,
  precision,
  taps,
)
from emanet_jax.models.convolution.platforms import by_platform

# Channels up to which the taps of a kernel's row share one product: wider
# products are faster, but the row has to be copied together.
_ROW_CHANNELS = 256


def filter_gradient(
  x: Float[Array, 'b h w c'],
  dy: Float[Array, 'b ho wo f'],
  size: int,
  stride: int,
  dilation: int,
) -> Float[Array, '{size} {size} c f']:
  """Sums the products of a convolution's input and its output's gradient.

  Args:
    x: Input of `conv2d`.
    dy: Gradient of its output, in x's dtype.
    size: Of the kernel, in taps.
    stride: Of the convolution.
    dilation: Of the convolution.

  Returns:
    float32 or wider; accelerators round it to x's dtype before.
  """
  options = {'size': size, 'stride': stride, 'dilation': dilation}
  ours = functools.partial(_of_taps, **options)
  kernel = size, size, x.shape[-1], dy.shape[-1]
  if stride == 1 and winograd.pays(x, kernel, dilation):
    ours = functools.partial(_of_winograd, dilation=dilation)
  library = functools.partial(_of_library, **options)
  return by_platform(ours, library)(x, dy)


_of_winograd = jax.jit(winograd.filter_gradient, static_argnames='dilation')


def _of_library(x, dy, size, stride, dilation):
  # Sums over devices are taken before the widening: half the bytes to send.
  gradient = _in_its_dtype(x, dy, size, stride, dilation)
  return gradient.astype(jnp.promote_types(x.dtype, jnp.float32))


def _in_its_dtype(x, dy, size, stride, dilation):
  if size == 1:
    numbers = (((0, 1, 2), (0, 1, 2)), ((), ()))
    x = x[:, ::stride, ::stride]
    gradient = lax.dot_general(x, dy, numbers, precision=precision(x))
    return gradient[None, None]
  if dilation > 1 and stride > 1:  # no network here has such a layer
    return _of_taps(x, dy, size, stride, dilation).astype(x.dtype)
  shape = size, size, x.shape[-1], dy.shape[-1]
  return _transposed(library_conv_or_patches, x, dy, shape, stride, dilation)


def _transposed(conv, x, dy, shape, stride, dilation):
  if dilation > 1 and stride == 1:
    x, dy = _space_to_batch(x, dilation), _space_to_batch(dy, dilation)
    dilation = 1
  (gradient,) = jax.linear_transpose(
    lambda kernel: conv(x, kernel, stride, dilation),
    jax.ShapeDtypeStruct(shape, x.dtype),
  )(dy)
  return gradient


def library_gradients(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'k k _ f'],
  dy: Float[Array, 'b ho wo f'],
  stride: int,
  dilation: int,
) -> tuple[Float[Array, 'b h w c'], Float[Array, 'k k _ f']]:
  """Accelerators' gradients of a convolution in groups.

  Args:
    x: Its input.
    kernel: Its kernel, [k, k, c / groups, f].
    dy: Gradient of its output, in x's dtype.
    stride: Of the convolution.
    dilation: Of the convolution.

  Returns:
    Those of the input, in x's dtype, and the kernel, in its own.
  """
  weights = kernel.astype(x.dtype)
  (dx,) = jax.linear_transpose(
    lambda x: library_conv(x, weights, stride, dilation), x
  )(dy)
  gradient = _transposed(library_conv, x, dy, kernel.shape, stride, dilation)
  return dx, gradient.astype(kernel.dtype)


def _space_to_batch(x, d):
  """Every d-th pixel of every d-th row is an image: [b, h, w, c] → [b d², …].

  The old batch stays in front, so that it stays spread over the devices.
  """
  b, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, -h % d), (0, -w % d), (0, 0)))
  h, w = x.shape[1] // d, x.shape[2] // d
  x = x.reshape(b, h, d, w, d, c).transpose(0, 2, 4, 1, 3, 5)
  return x.reshape(b * d * d, h, w, c)


@functools.partial(jax.jit, static_argnames=('size', 'stride', 'dilation'))
def _of_taps(x, dy, size, stride, dilation):
  """Tap by tap, the padding left out.

  The first factor of each product has its channels first. It is made of dy,
  once, and the products come out as [f, c]: turning them at the end, together,
  is cheap.
  """
  channels, features = x.shape[-1], dy.shape[-1]
  dtype = jnp.promote_types(x.dtype, jnp.float32)

  def product(first, second):
    # Widened before: XLA has no product on CPUs of bfloat16 with a float32
    # result, and does not always see by itself that it has to widen.
    return lax.dot_general(
      first.astype(dtype),
      second.astype(dtype),
      (((1, 2, 3), (0, 1, 2)), ((), ())),
      precision=precision(dy),
    )

  store = by_platform(_store_channels_first, _channels_first)
  if size == 1:
    x = x[:, ::stride, ::stride]
    if channels < features:
      return product(store(x), dy)[None, None]
    return product(store(dy), x).T[None, None]

  rows, cols = (taps(n, size, stride, dilation) for n in x.shape[1:3])
  dy = store(dy)
  if channels > _ROW_CHANNELS:
    gradient = [
      product(dy[:, :, row[0], col[0]], x[:, row[1], col[1]])
      if row and col
      else jnp.zeros((features, channels), dtype)
      for row in rows
      for col in cols
    ]
    gradient = jnp.stack(gradient).reshape(size, size, features, channels)
    return gradient.swapaxes(2, 3)

  pad = dilation * (size // 2)
  x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
  span = (dy.shape[3] - 1) * stride + 1

  def row_of_taps(row):
    read = [slice(j, j + span, stride) for j in range(0, 2 * pad + 1, dilation)]
    patches = [x[:, row[1], cols] for cols in read]
    return product(dy[:, :, row[0]], jnp.concatenate(patches, axis=-1))

  nothing = jnp.zeros((features, size * channels), dtype)
  gradient = jnp.stack([row_of_taps(row) if row else nothing for row in rows])
  gradient = gradient.reshape(size, features, size, channels)
  return gradient.transpose(0, 2, 3, 1)


def _channels_first(x):
  return jnp.moveaxis(x, -1, 0)


@jax.jit
def _store_channels_first(x):
  return with_layout_constraint(_channels_first(x), Layout((0, 1, 2, 3)))
