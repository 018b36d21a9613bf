"""3×3 convolutions with four multiplications for nine, by Winograd's algorithm.

F(2×2, 3×3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks" (2016): two by two outputs are made of four by four inputs. These and
the kernel are transformed by additions to sixteen values each, the channels'
products are taken value by value, and transformed back. Of a dilated
convolution every d-th pixel of every d-th row is such a convolution of its own.

In float32 its results are nearly as exact as those of the direct sums. Of 256
to 2048 channels the root mean squares of the errors, over those of the results,
are 5e-7 to 7e-7 forward (XLA's convolution: 4e-7) and 4e-7 to 5e-7 in the
kernel's gradient (XLA's: 6e-7). bfloat16 is too short for the transforms.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emanet_jax.array import Array
from emanet_jax.models.convolution.atrous import precision, reached
from emanet_jax.models.convolution.platforms import by_platform

# Taken where its multiplications, padded tiles included, are less than this
# share of the direct ones without padding; and from so many channels, of the
# input and of the output, and so many tiles on, since the transforms cost, too:
# 2048 → 512 channels at 17² take 1.28 of the direct time forward for one image
# (81 tiles), 0.87 for two.
_SHARE = 0.75
_CHANNELS = 256
_TILES = 128


def pays(
  x: Float[Array, 'b h w c'], kernel: tuple[int, ...], dilation: int
) -> bool:
  """Whether a CPU is faster with it than in the direct ways.

  Args:
    x: Input of a convolution of stride 1, or the gradient of its output.
    kernel: Shape of the convolution's kernel, [k, k, c, f].
    dilation: Distance between taps, in pixels.
  """
  if x.dtype.itemsize < 4 or kernel[:2] != (3, 3):
    return False
  batch, *size, _ = x.shape
  tiles = math.prod(dilation * _tiles(n, dilation) for n in size)
  share = 16 * tiles / math.prod(reached(n, 3, dilation) for n in size)
  if isinstance(batch, int):  # not exported for any number of images
    tiles *= batch
  few = tiles < _TILES or min(kernel[2:]) < _CHANNELS
  return share < _SHARE and not few


def convolve(
  x: Float[Array, 'b h w in'],
  kernel: Float[Array, '3 3 c f'],
  *,
  dilation: int,
  turned: bool,
) -> Float[Array, 'b h w out']:
  """Convolution of stride 1, padded by `dilation`.

  Args:
    x: float32 or wider.
    kernel: In x's dtype.
    dilation: Distance between taps, in pixels.
    turned: With the kernel turned round and its channels exchanged, as the
      gradient of the input takes it: from f channels to c.
  """
  columns = _to_output(
    *(
      by_platform(_column_of_products, column=j, turned=turned)(inputs, kernel)
      for j, inputs in enumerate(_of_inputs(x, dilation))
    )
  )
  y = jnp.stack([jnp.stack(_to_output(*c), axis=2) for c in columns], axis=5)
  h, w = (2 * dilation * _tiles(n, dilation) for n in x.shape[1:3])
  y = y.reshape(x.shape[0], h, w, y.shape[-1])
  return y[:, : x.shape[1], : x.shape[2]]


def filter_gradient(
  x: Float[Array, 'b h w c'], dy: Float[Array, 'b h w f'], *, dilation: int
) -> Float[Array, '3 3 c f']:
  """The gradient of `convolve`'s kernel.

  Args:
    x: Input of the convolution, float32 or wider.
    dy: Gradient of its output, in x's dtype.
    dilation: Of the convolution.
  """
  columns = _to_kernel(
    *(
      by_platform(_column_of_gradient)(inputs, outputs)
      for inputs, outputs in zip(
        _of_inputs(x, dilation), _of_outputs(dy, dilation), strict=True
      )
    )
  )
  return jnp.stack(columns, axis=1).swapaxes(2, 3)


@functools.partial(jax.jit, static_argnames=('column', 'turned'))
def _column_of_products(inputs, kernel, column, turned):
  """Products before their transform: [4, b, tiles, d, tiles, d, out].

  A program of its own, so that the transformed kernels of one column are there
  at a time: those of all four are nearly twice as large as the kernel.
  """
  if turned:
    kernel = kernel[::-1, ::-1]
  kernel = _of_kernel(*kernel.swapaxes(0, 1))[column]
  indices = 'p...f,pcf->p...c' if turned else 'p...c,pcf->p...f'
  return jnp.einsum(
    indices, inputs, jnp.stack(_of_kernel(*kernel)), precision=precision(inputs)
  )


@jax.jit
def _column_of_gradient(inputs, outputs):
  """Products, of which the rows are transformed already: [3, f, c].

  A program of its own for the same reason.
  """
  products = jnp.einsum(
    'pnf,pnc->pfc',
    *(x.reshape(4, -1, x.shape[-1]) for x in (outputs, inputs)),
    precision=precision(inputs),
  )
  return jnp.stack(_to_kernel(*products))


def _tiles(length, dilation):
  """Tiles of two outputs along an axis of each of the `dilation` parts."""
  return -(-length // (2 * dilation))


def _of_inputs(x, dilation):
  """Transforms the inputs of all tiles, rows and then columns.

  Returns:
    Four columns of four places each: [4, b, tiles, d, tiles, d, c].
  """
  rows, cols = (_tiles(n, dilation) for n in x.shape[1:3])
  pads = [
    (dilation, (2 * tiles + 1) * dilation - n)
    for tiles, n in zip((rows, cols), x.shape[1:3], strict=True)
  ]
  x = _split(jnp.pad(x, ((0, 0), *pads, (0, 0))), dilation)
  x = [x[:, i // 2 : i // 2 + rows, i % 2] for i in range(4)]
  x = jnp.stack(_of_input(*x))
  x = [x[:, :, :, :, j // 2 : j // 2 + cols, j % 2] for j in range(4)]
  return _of_input(*x)


def _of_outputs(y, dilation):
  """Transforms the gradients of the outputs of all tiles.

  Returns:
    As `_of_inputs`.
  """
  pads = [(0, -n % (2 * dilation)) for n in y.shape[1:3]]
  y = _split(jnp.pad(y, ((0, 0), *pads, (0, 0))), dilation)
  y = jnp.stack(_of_output(y[:, :, 0], y[:, :, 1]))
  return _of_output(y[:, :, :, :, :, 0], y[:, :, :, :, :, 1])


def _split(x, dilation):
  """Splits both axes into tiles, their two pixels, and the dilation's parts."""
  b, h, w, c = x.shape
  tile = 2 * dilation
  return x.reshape(b, h // tile, 2, dilation, w // tile, 2, dilation, c)


# Lavin and Gray's B^T, G and A^T, and for the gradient A and G^T, on one axis.
def _of_input(a, b, c, d):
  return a - c, b + c, c - b, b - d


def _of_kernel(a, b, c):
  return a, (a + b + c) / 2, (a - b + c) / 2, c


def _to_output(a, b, c, d):
  return a + b + c, b - c - d


def _of_output(a, b):
  return a, a + b, a - b, -b


def _to_kernel(a, b, c, d):
  return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d
