"""A network of basic blocks gives mmsegmentation's numbers, from its file."""

import jax
import numpy as np

from emanet_jax.models.pytorch.weights import network_from_torch
from emanet_jax.models.segmenter import create_model
from tests import recipe
from tests.models.heads.rivals import nhwc
from tests.models.pytorch.torch_names import CLASSIC, imagenet_shapes


def test_resnet_18_and_a_dilated_fcn_at_output_stride_16():
  """What the file does not tell is told, as for its run book."""
  figures = recipe.golden('rivals/fcn_d6_r18b')
  seed, height, width, classes, step = (
    int(figures[k])
    for k in ('seed', 'height', 'width', 'classes', 'logits_step')
  )
  backbone = imagenet_shapes((2, 2, 2, 2), 64, (64,), CLASSIC, basic=True)
  shapes = recipe.rival_shapes('fcn_d6_r18b') | {
    f'backbone.{k}': v for k, v in backbone.items() if not k.startswith('fc.')
  }
  variables, config = network_from_torch(
    {
      name: recipe.weight(name, tuple(shape), seed)
      for name, shape in shapes.items()
      if not name.endswith('num_batches_tracked')
    }
  )
  config.backbone.output_stride = 16
  config.head.dilation = config.auxiliary_head.dilation = 6
  model = create_model(config, classes)

  def outputs(model, image):
    features = model.backbone(image, train=False)
    low = model.head(features, train=False)
    return {
      'logits_lowres': low,
      'aux_lowres': model.auxiliary_head(features[:-1], train=False),
      'logits': model.upsample(low, (height, width))[:, ::step, ::step],
    }

  image = nhwc(recipe.image(seed, 1, height, width))
  run = jax.jit(lambda v, x: model.apply(v, x, method=outputs))
  for name, value in run(variables, image).items():
    np.testing.assert_allclose(
      value, nhwc(figures[name]), rtol=0, atol=5e-6, err_msg=name
    )
