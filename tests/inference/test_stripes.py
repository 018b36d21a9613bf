"""Labels and sums of probabilities are those of all logits at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.inference import stripes
from emanet_jax.inference.views import Seen
from emanet_jax.models.resize import interpolate, interpolation

SHAPE, LOW, CLASSES = (75, 21), (10, 4), 9  # two stripes, and a part of one
SIZE = np.array([(75, 21), (40, 13), (0, 0)], np.int32)


@pytest.fixture(scope='module', params=[True, False], ids=['low', 'native'])
def seen(request):
  rng = np.random.default_rng(0)
  shape = LOW if request.param else SHAPE
  logits = rng.normal(size=(len(SIZE), *shape, CLASSES)).astype(np.float32)
  if not request.param:
    return Seen(jnp.array(logits), None, {})
  up = [
    interpolation(-(-SIZE[:, i] // 8), SIZE[:, i], (SHAPE[i], LOW[i]), True)
    for i in (0, 1)
  ]
  return Seen(jnp.array(logits), (up[0], up[1]), {})


def enlarged(seen):
  low, up, _ = seen
  return np.asarray(low if up is None else interpolate(low, *up), np.float64)


def test_labels_are_the_greatest_logits(seen):
  labels = jax.jit(stripes.label, static_argnums=1)(seen, SHAPE)
  assert labels.dtype == jnp.uint8
  want = enlarged(seen).argmax(axis=-1)
  assert len(np.unique(want)) == CLASSES
  np.testing.assert_array_equal(labels, want)


def test_of_equal_logits_the_first_class_counts():
  low = jnp.zeros((1, *SHAPE, 4)).at[..., 1].set(2).at[..., 3].set(2)
  assert (stripes.label(Seen(low, None, {}), SHAPE) == 1).all()


def test_probabilities_are_added_once_and_only_inside(seen):
  rng = np.random.default_rng(1)
  total = np.float32(rng.uniform(size=(len(SIZE), *SHAPE, CLASSES)))
  for i, (height, width) in enumerate(SIZE):
    total[i, height:] = total[i, :, width:] = 0
  want = np.exp(enlarged(seen))
  want /= want.sum(axis=-1, keepdims=True)
  want += total
  got = jax.jit(stripes.add_probabilities)(jnp.array(total), seen, SIZE)
  for i, (height, width) in enumerate(SIZE):
    np.testing.assert_allclose(
      got[i, :height, :width], want[i, :height, :width], rtol=1e-5
    )
    assert not got[i, height:].any()
    assert not got[i, :, width:].any()


def test_the_logits_of_all_pixels_are_never_there():
  """What the programs need grows with a stripe, not with an image."""
  shape, low = (1024, 128), (16, 16)
  f32 = jnp.float32
  seen = Seen(
    jax.ShapeDtypeStruct((1, *low, 50), f32),
    tuple(
      jax.ShapeDtypeStruct((1, n, m), f32)
      for n, m in zip(shape, low, strict=True)
    ),
    {},
  )
  all_of_them = 4 * 50 * shape[0] * shape[1]
  label = jax.jit(stripes.label, static_argnums=1).lower(seen, shape)
  label = label.compile().memory_analysis()
  assert label.temp_size_in_bytes < all_of_them / 4

  total = jax.ShapeDtypeStruct((1, *shape, 50), f32)
  add = jax.jit(stripes.add_probabilities, donate_argnums=0)
  add = add.lower(total, seen, jax.ShapeDtypeStruct((1, 2), jnp.int32))
  add = add.compile().memory_analysis()
  assert add.alias_size_in_bytes == all_of_them
  assert add.temp_size_in_bytes < all_of_them / 4
