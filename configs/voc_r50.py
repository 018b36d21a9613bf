"""PASCAL VOC 2012, EMANet-512 with ResNet-50, trained at output stride 16.

The network of the paper's ablations: as configs/voc.py, but batches of 12 and
output stride 16 in training; evaluate with output stride 8, which has the same
weights:

  python -m emanet_jax.main --config configs/voc_r50.py --workdir runs/voc_r50 \
      --config.init_from=pretrained/resnet50 --config.data.data_dir=R
  python -m emanet_jax.main --config configs/voc_r50.py --workdir runs/voc_r50 \
      --mode=evaluate --config.model.backbone.output_stride=8 \
      --config.model.head.eval_stages=7

Scores of the paper on val, single scale, T 3 in training: mIoU 78.52 at T 3 in
evaluation, 78.89 at T 7. Not run here yet.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """Changes depth, stride and batch size alone."""
  config = default_config()
  config.model.backbone.depth = 50
  config.model.backbone.output_stride = 16
  config.train.batch_size = 12
  return config
