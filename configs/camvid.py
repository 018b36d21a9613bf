"""CamVid road scenes, EMANet-512 with ResNet-50 from ImageNet weights.

Data: 480×360 frames as SegNet published them, in D: train/ trainannot/ val/
valannot/ (367 and 101 images; test/ testannot/ where you have them); prepared
once into R.

  python -m emanet_jax.tools.prepare_data camvid --manual_dir D --data_dir R
  python -m emanet_jax.main --config configs/camvid.py --workdir runs/camvid \
      --config.data.data_dir=R --config.init_from=pretrained/resnet50

The recipe is VOC's with shorter training and crops for the smaller images; it
is ours, EMANet's authors did not use CamVid. For orientation, published test
mIoU with ImageNet weights is 65.6 to 68.7 (BiSeNet). It has not been run from
ImageNet weights here yet; from random ones, with other values, it has been: see
docs/speed.md. Without an accelerator see configs/camvid_small.py.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's recipe, fitted to 367 images of 480×360."""
  config = default_config()
  config.data.name = 'camvid'
  config.data.train_split = 'train'
  config.data.crop_size = 353
  config.model.backbone.depth = 50
  config.loss.cross_entropy.average = 'valid'
  config.train.steps = 6_000
  config.train.eval_every = 500
  config.train.checkpoint_every = 500
  return config
