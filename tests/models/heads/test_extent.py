"""Heads keep inside the images of a batch of several sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.models import layers
from emanet_jax.models.outputs import ATTENTION
from emanet_jax.parts import HEADS
from emanet_jax.prediction.attention_maps import WITH_ATTENTION
from tests.models.heads.attention import products

VARIANTS = [
  *((name, {}) for name in HEADS.names()),
  ('deeplabv3', {'projection_size': 3, 'num_convs': 1}),
  ('deeplabv3plus', {'separable': True, 'align_corners': False}),
  ('enc', {'use_lateral': True}),
  ('fcn', {'num_convs': 2, 'concat_input': True}),
  ('nonlocal', {'pairwise': 'dot'}),
  ('psa', {'padded': True}),
  ('psp', {'align_corners': False}),
]


@pytest.mark.parametrize(('name', 'options'), VARIANTS)
def test_an_image_in_a_larger_batch_gets_what_it_gets_alone(name, options):
  narrow = {
    'channels': 16,
    'out_channels': 16,
    'region_channels': 16,
    'inner_channels': 8,
    'num_maps': 8,
    'num_codes': 4,
    'mask_size': 7,
  }
  known = HEADS.options(name)
  options = {k: v for k, v in narrow.items() if k in known} | options
  head = HEADS.create(name, 5, 0.9, **options)
  rng = np.random.default_rng(1)
  # What lies outside is no image's, and must not matter.
  last = [[11, 13], [6, 7]]
  extents = [[[21, 25], [11, 14]], last, last, last]
  of_x = np.random.default_rng(2)
  x = tuple(
    of_x.normal(size=(2, *sizes[0], c)).astype(np.float32)
    for sizes, c in zip(extents, (8, 12, 16, 24), strict=True)
  )
  abstract = jax.eval_shape(
    functools.partial(head.init, train=False), jax.random.key(0), x
  )

  def draw(leaf):
    value = rng.normal(size=leaf.shape)
    if len(leaf.shape) == 4:
      value *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
    else:
      value = 1 + 0.1 * np.tanh(value)
    return np.float32(value)

  variables = jax.tree.map(
    draw, {k: v for k, v in abstract.items() if k != 'intermediates'}
  )

  @jax.jit
  def apply(x, **given):
    with nn.intercept_methods(layers.like_flax):
      return head.apply(variables, x, train=False, mutable=[ATTENTION], **given)

  stage = getattr(head, 'output_stage', None)
  both, sown = (
    apply(x, extent=jnp.array(last))
    if stage is None
    else apply(x, extents=tuple(map(jnp.array, extents)))
  )
  assert bool(sown) == (name in WITH_ATTENTION and name != 'ema')
  weights = products(sown)
  for i in range(2):
    alone, sown = apply(
      tuple(
        f[i : i + 1, : sizes[i][0], : sizes[i][1]]
        for f, sizes in zip(x, extents, strict=True)
      )
    )
    rows, cols = extents[-1 if stage is None else stage][i]
    np.testing.assert_allclose(
      both[i : i + 1, :rows, :cols], alone, rtol=1e-6, atol=1e-5
    )
    inside = np.zeros(last[0], bool)
    inside[:rows, :cols] = True
    for key, w_alone in products(sown).items():
      w = weights[key][i][inside.ravel()]
      assert not w[:, ~inside.ravel()].any()
      np.testing.assert_allclose(
        w[:, inside.ravel()], w_alone[0], rtol=1e-5, atol=1e-5
      )
      check_sums(w, (rows, cols), options)


def check_sums(w, size, options):
  """Rows of a position's weights are an average's, but where they say so."""
  sums = w.sum(-1)
  if options.get('pairwise') == 'dot':
    assert w.min() < 0 < w.max()
    return
  assert w.min() >= 0
  if options.get('padded'):  # by zeros, which borders are interpolated with
    assert sums.max() <= 1 + 1e-5
    sums = sums.reshape(size)[2:-2, 2:-2]
  np.testing.assert_allclose(sums, 1, rtol=1e-5)
