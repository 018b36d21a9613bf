"""PASCAL VOC 2012 with the other networks, as mmsegmentation trains them.

Data as for `configs/voc.py`. Weights: mmsegmentation's ImageNet ResNet-101 with
its deep stem, resnet101_v1c-e67eebb6.pth. The head is PSPNet's; each other one
is chosen by name, see docs/networks.md for those that need more, and for what
each should score.

  python -m emanet_jax.tools.convert_torch resnet101_v1c-e67eebb6.pth \
      pretrained/resnet101_v1c
  python -m emanet_jax.main --config configs/voc_mmseg.py \
      --workdir runs/voc_da --config.data.data_dir=R \
      --config.init_from=pretrained/resnet101_v1c --config.model.head.name=da

Values are those of its `schedule_40k` and `pascal_voc12_aug`: 40000 steps of 16
crops of 512², rate 0.01 with poly 0.9, decay 5e-4, an auxiliary FCN with weight
0.4, running statistics' momentum 0.1 in PyTorch's sense, output stride 8.
Differences: mmsegmentation enlarges each photo to a short side of 512 times
0.5 to 2 before it crops, about 0.7 to 2.7 times of most photos, which scales
here say; distorts colours half of the time, each with its own chance, here
always; decays normalisations and biases, too, here kernels alone; stops at a
rate of 1e-4 and not 0; and tests at a short side of 512, here at photos' size.

Not run here yet: no score of ours to give.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """PSPNet's; `model.head.name` chooses another network."""
  config = default_config()
  config.model.norm_momentum = 0.9
  config.model.align_corners = False
  config.model.backbone.stem_widths = (32, 32, 64)
  config.model.backbone.multi_grid = (1, 1, 1)
  config.model.head.name = 'psp'
  config.model.head.align_corners = False
  config.model.auxiliary_head.weight = 0.4
  config.data.crop_size = 512
  config.data.scales = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75)
  config.data.augmentations.color.brightness = 0.125
  config.data.augmentations.color.contrast = 0.5
  config.data.augmentations.color.saturation = 0.5
  config.data.augmentations.color.hue = 0.1
  config.optimizer.learning_rate = 0.01
  config.optimizer.bias_multiplier = 1.0
  config.optimizer.weight_decay = 5e-4
  config.optimizer.decay_every = 0
  config.train.steps = 40_000
  return config
