"""PASCAL VOC 2012, the light EMANet-256 with ResNet-101.

As configs/voc.py, with the EM attention unit at half its width: 21 G instead of
43 G multiply-adds beyond the backbone (the paper's count at 513²).

  python -m emanet_jax.main --config configs/voc_256.py --workdir runs/voc_256 \
      --config.init_from=pretrained/resnet101 --config.data.data_dir=R

Scores of the paper on val: mIoU 79.73 single scale, 80.94 multi-scale and
flip. Not run here yet.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """Changes the width of the unit alone."""
  config = default_config()
  config.model.head.channels = 256
  return config
