"""Cityscapes, EMANet-512 with ResNet-101 and hard example mining.

Data: leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or what they
unpack to, in D; prepared once into R (about 11 GB).

  python -m emanet_jax.tools.prepare_data cityscapes --manual_dir D \
      --data_dir R
  python -m emanet_jax.main --config configs/cityscapes.py \
      --workdir runs/cityscapes --config.data.data_dir=R \
      --config.init_from=pretrained/resnet101

Weights as in configs/voc.py. Scores of the paper's authors, with hard example
mining: mIoU 81.14 on val at single scale, 81.9 on test at several scales. Not
run here yet: no time or score of ours to give. Their other values for this set
are not published; from where each is:

* mmsegmentation's EMANet at 769² (configs/emanet), which scores 79.62 on val at
  single scale and 81.00 at several with flip: 80000 steps of 8 crops of 769²,
  rate 0.01, decay 5e-4, an evaluation every 8000 steps. Not taken from there:
  photometric distortion, the limit of 75 % of a crop on one class, the
  auxiliary head, the least rate of 1e-4, and evaluation by windows.
* its OHEM sampler: pixels below a probability of 0.7 count, and 100000 of each
  crop at least (8 crops: 800000), with the sum divided by all pixels.
* the network, scales, poly 0.9, rates of biases, decay of kernels alone and the
  momentum of running statistics: the authors' for VOC.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's network with the usual schedule of Cityscapes."""
  config = default_config()
  config.data.name = 'cityscapes'
  config.data.train_split = 'train'
  config.data.crop_size = 769
  config.loss.cross_entropy.ohem_threshold = 0.7
  config.loss.cross_entropy.ohem_min_kept = 800_000  # of 8 × 769² = 4,730,888
  config.optimizer.learning_rate = 0.01
  config.optimizer.weight_decay = 5e-4
  config.train.steps = 80_000
  config.train.batch_size = 8
  config.train.eval_every = 8_000
  return config
