"""COCO-Stuff 164k (171 classes), EMANet-512 with ResNet-101.

Data: train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip, or what
they unpack to, in D; prepared once into R (about 20 GB).

  python -m emanet_jax.tools.prepare_data coco_stuff164k --manual_dir D \
      --data_dir R
  python -m emanet_jax.main --config configs/coco_stuff164k.py \
      --workdir runs/coco_stuff164k --config.data.data_dir=R \
      --config.init_from=pretrained/resnet101

Weights as in configs/voc.py. Neither the paper nor mmsegmentation gives an
EMANet on this set; scores on COCO-Stuff 10k are of other photos. For
orientation, mmsegmentation's PSPNet, ResNet-101, has on val at single scale
40.34 mIoU after 80000 steps, 41.28 after 160000 and 41.95 after 320000. Not run
here yet: no time or score of ours to give. From where each value is:

* mmsegmentation's shortest schedule for this set (4 GPUs of 4 crops,
  schedule_80k): 80000 steps of 16 crops of 512² (here 513², as output stride 8
  wants), rate 0.01, decay 5e-4, an evaluation every 8000 steps. There a photo's
  shorter side is first made 512, here it is as published; and there are
  photometric distortion, a limit on one class in a crop, an auxiliary head and
  a least rate of 1e-4, here not.
* the network and all else: the authors' for VOC.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's network with the usual schedule of COCO-Stuff 164k."""
  config = default_config()
  config.data.name = 'coco_stuff164k'
  config.data.train_split = 'train'
  config.optimizer.learning_rate = 0.01
  config.optimizer.weight_decay = 5e-4
  config.train.steps = 80_000
  config.train.eval_every = 8_000
  return config
