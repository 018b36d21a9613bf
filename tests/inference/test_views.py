"""Looks at images: in a shared batch as alone, scaled, mirrored, in windows.

The twins look at one image at a time, at its own size, with resizing written
out in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.inference import batching, predictor, views
from emanet_jax.models.segmenter import create_model, normalize
from tests import tiny

CLASSES, STRIDE = 7, 8
SIZES = ((41, 57), (23, 64), (64, 30), (64, 64), (1, 9))
SHAPE = (70, 66)  # larger than any image, and not 1 modulo the stride


@pytest.fixture(scope='module', params=[True, False], ids=['corners', 'edges'])
def network(request):
  config = tiny.tiny_config(model__align_corners=request.param).model
  model = create_model(config, CLASSES)
  return model, tiny.random_variables(model)


@functools.cache
def apply_alone(model):
  return jax.jit(
    functools.partial(model.apply, mutable=['intermediates']),
    compiler_options={'xla_backend_optimization_level': 0},
  )


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(1)
  return [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in SIZES]


@pytest.fixture(scope='module')
def batch(images):
  """The images, an empty place, and rubbish where no image is."""
  batch = batching.pad_images(images, SHAPE, len(images) + 1)
  rng = np.random.default_rng(2)
  rubbish = rng.integers(0, 256, batch['image'].shape, dtype=np.uint8)
  for i, image in enumerate(images):
    rubbish[i, : image.shape[0], : image.shape[1]] = image
  return {**batch, 'image': rubbish}


def resize(x, size, align_corners):
  """Bilinear resizing of [h, w, c] in float64, PyTorch's conventions."""
  for axis, out in enumerate(size):
    length = x.shape[axis]
    place = np.arange(out, dtype=np.float64)
    if align_corners:
      place = place * (length - 1) / max(out - 1, 1)
    else:
      place = ((place + 0.5) * length / out - 0.5).clip(0, length - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, length - 1)
    share = np.expand_dims(place - low, tuple({0, 1, 2} - {axis}))
    x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
  return x


def padded(model, x):
  if not model.align_corners:
    return x
  missing = [(0, -(n - 1) % STRIDE) for n in x.shape[:2]]
  return np.pad(x, (*missing, (0, 0)))


def logits_alone(network, x):
  """Of a normalised image [h, w, 3], at its own size."""
  model, variables = network
  height, width = x.shape[:2]
  logits, _ = apply_alone(model)(variables, jnp.float32(padded(model, x))[None])
  return np.asarray(logits, np.float64)[0, :height, :width]


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def test_images_in_a_batch_get_what_they_get_alone(network, images, batch):
  model, variables = network
  look = jax.jit(functools.partial(views.view_logits, model))
  logits, sown = look(variables, batch['image'], batch['size'])
  for i, image in enumerate(images):
    height, width = image.shape[:2]
    want = logits_alone(network, np.float64(normalize(image)))
    assert np.abs(want).max() > 0.5
    np.testing.assert_allclose(
      logits[i, :height, :width], want, rtol=0, atol=3e-6 * np.abs(want).max()
    )
  assert np.isfinite(logits).all()  # of the empty place, too
  assert np.isfinite(sown['bases']).all()


def test_a_head_of_single_pixels_gets_what_it_gets_alone(images, batch):
  """Nothing in it keeps what lies outside of the images out."""
  config = tiny.tiny_config().model
  config.head.name = 'fcn'
  model = create_model(config, CLASSES)
  network = model, tiny.random_variables(model)
  look = jax.jit(functools.partial(views.view_logits, model))
  logits, _ = look(network[1], batch['image'], batch['size'])
  assert np.isfinite(logits).all()
  for i in (0, 4):
    height, width = SIZES[i]
    want = logits_alone(network, np.float64(normalize(images[i])))
    np.testing.assert_allclose(
      logits[i, :height, :width], want, rtol=0, atol=3e-6 * np.abs(want).max()
    )


def test_bases_and_responsibilities_are_those_alone(network, images, batch):
  model, variables = network
  look = jax.jit(functools.partial(views.view_logits, model))
  _, sown = look(variables, batch['image'], batch['size'])
  for i, image in enumerate(images):
    x = jnp.float32(padded(model, np.float64(normalize(image))))[None]
    _, alone = apply_alone(model)(variables, x)
    unit = alone['intermediates']['head']['ema_unit']
    np.testing.assert_allclose(sown['bases'][i], unit['bases'][0][0], atol=2e-5)
    z = unit['responsibilities'][0][0]
    got = sown['responsibilities'][i, : z.shape[0], : z.shape[1]]
    np.testing.assert_allclose(got, z, atol=2e-4)


def scaled_alone(network, image, scale, mirrored):
  """Logits of one view at native size."""
  model = network[0]
  x = np.float64(normalize(image))
  x = x[:, ::-1] if mirrored else x
  size = [max(1, int(np.round(n * scale))) for n in x.shape[:2]]
  x = resize(x, size, model.align_corners)
  logits = logits_alone(network, x)
  logits = resize(logits, image.shape[:2], model.align_corners)
  return logits[:, ::-1] if mirrored else logits


@pytest.mark.parametrize('scales', [(1.0,), (0.5, 1.75)])
@pytest.mark.parametrize('flip', [False, True])
def test_probabilities_are_the_mean_over_views(
  network, images, batch, scales, flip
):
  model, variables = network
  predict = predictor.create_predictor(
    model, predictor.Protocol(scales, flip=flip)
  )
  got, _ = predict(variables, batch['image'], batch['size'])
  assert got.shape == (len(images) + 1, *SHAPE, CLASSES)
  for i, image in enumerate(images[:2]):
    height, width = image.shape[:2]
    want = np.mean(
      [
        softmax(scaled_alone(network, image, scale, mirrored))
        for scale in scales
        for mirrored in ((False, True) if flip else (False,))
      ],
      axis=0,
    )
    np.testing.assert_allclose(got[i, :height, :width], want, atol=5e-4)
    plain = softmax(logits_alone(network, np.float64(normalize(image))))
    assert (np.abs(plain - want).max() > 0.01) == (flip or len(scales) > 1)
    assert not got[i, height:].any()
    assert not got[i, :, width:].any()
  assert not got[len(images)].any()


def slide_alone(network, x, window, stride):
  """Averages the logits of windows over a normalised image."""
  height, width = x.shape[:2]
  total = np.zeros((height, width, CLASSES))
  count = np.zeros((height, width, 1))
  rows, cols = (
    sorted({min(i, max(0, n - window)) for i in range(0, n, stride)})
    for n in (height, width)
  )
  rows = [
    r for i, r in enumerate(rows) if i == 0 or rows[i - 1] + window < height
  ]
  cols = [
    c for i, c in enumerate(cols) if i == 0 or cols[i - 1] + window < width
  ]
  for top in rows:
    for left in cols:
      cut = x[top : top + window, left : left + window]
      here = slice(top, top + window), slice(left, left + window)
      total[here] += logits_alone(network, cut)
      count[here] += 1
  return total / count


@pytest.mark.parametrize(('window', 'stride'), [(33, 24), (40, 40), (128, 64)])
def test_windows_are_averaged_where_they_overlap(
  network, images, batch, window, stride
):
  model, variables = network
  look = functools.partial(
    views.view_logits, model, window=window, stride=stride
  )
  logits, _ = jax.jit(look)(variables, batch['image'], batch['size'])
  for i, image in enumerate(images[:3]):
    height, width = image.shape[:2]
    want = slide_alone(network, np.float64(normalize(image)), window, stride)
    got = logits[i, :height, :width]
    np.testing.assert_allclose(got, want, atol=3e-6 * np.abs(want).max())


def test_windows_at_a_scale(network, images, batch):
  model, variables = network
  look = functools.partial(
    views.view_logits, model, scale=1.5, window=48, stride=32
  )
  logits, _ = jax.jit(look)(variables, batch['image'], batch['size'])
  image = images[0]
  height, width = image.shape[:2]
  size = [int(np.round(1.5 * n)) for n in (height, width)]
  x = resize(np.float64(normalize(image)), size, model.align_corners)
  want = slide_alone(network, x, 48, 32)
  want = resize(want, (height, width), model.align_corners)
  got = logits[0, :height, :width]
  np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_padded_size_is_the_smallest_that_is_one_modulo_stride(stride):
  for length in range(1, 3 * stride + 2):
    padded, other = views.padded_size(length, stride + 1, stride)
    assert padded % stride == 1
    assert 0 <= padded - length < stride
    assert other == stride + 1
