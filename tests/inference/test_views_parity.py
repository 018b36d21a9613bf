"""In a shared batch as alone, with the reference weights, at real sizes."""

import functools
import os
import pathlib

import cv2
import jax
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.inference import batching, views
from emanet_jax.models.segmenter import create_model, normalize
from emanet_jax.tools.convert_torch import variables_from_torch
from tests import recipe

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ATOL = 2e-4


def smooth(height, width, seed):
  coarse = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def random_photos():
  sizes = np.random.default_rng(5).integers(60, 150, (3, 2))
  return [smooth(h, w, i) for i, (h, w) in enumerate(sizes.tolist())]


def voc_photos():
  default = REPOSITORY.parent / 'shared' / 'data'
  folder = pathlib.Path(os.environ.get('EMANET_DATA_DIR', default))
  found = sorted((folder / 'VOCdevkit/VOC2012/JPEGImages').glob('*.jpg'))
  if not found:
    pytest.skip(f'no VOCdevkit in {folder}; set EMANET_DATA_DIR to run this')
  return [cv2.imread(str(path))[..., ::-1] for path in found]


@pytest.mark.parametrize('photos', [random_photos, voc_photos])
def test_as_alone(photos):
  config = default_config().model
  config.backbone.depth = 50
  model = create_model(config, 21)
  seed = int(recipe.golden('forward_r50_os8')['seed'])
  variables = variables_from_torch(recipe.state_dict('emanet50', seed))
  images = photos()
  largest = np.max([image.shape[:2] for image in images], axis=0).tolist()
  batch = batching.pad_images(
    images, views.padded_size(*largest, 8), len(images) + 1
  )
  look = jax.jit(functools.partial(views.view_logits, model))
  logits, _ = look(variables, batch['image'], batch['size'])
  alone = jax.jit(model.apply)
  for i, image in enumerate(images):
    height, width = image.shape[:2]
    padded = np.zeros((1, *views.padded_size(height, width, 8), 3), np.float32)
    padded[0, :height, :width] = normalize(image)
    want = np.asarray(alone(variables, padded))[0, :height, :width]
    assert want.std() > 0.05
    difference = np.abs(logits[i, :height, :width] - want).max()
    print(f'{image.shape}: {difference:.1e} of {np.abs(want).max():.2f}')
    assert difference < ATOL
