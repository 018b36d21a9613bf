"""ADE20K (150 classes), EMANet-512 with ResNet-101.

Data: ADEChallengeData2016.zip, or what it unpacks to, in D; prepared once into
R (about 1 GB).

  python -m emanet_jax.tools.prepare_data ade20k --manual_dir D --data_dir R
  python -m emanet_jax.main --config configs/ade20k.py --workdir runs/ade20k \
      --config.data.data_dir=R --config.init_from=pretrained/resnet101

Weights as in configs/voc.py. Neither the paper nor mmsegmentation gives an
EMANet on ADE20K. For orientation, with another attention on the same kind of
backbone: mmsegmentation's DANet, ResNet-101, 160000 steps, has 44.17 mIoU on
val at single scale and 45.02 at several with flip. Not run here yet: no time or
score of ours to give. From where each value is:

* mmsegmentation's schedule for ADE20K (4 GPUs of 4 crops, schedule_160k):
  160000 steps of 16 crops of 512² (here 513², as output stride 8 wants), rate
  0.01, decay 5e-4, an evaluation every 16000 steps. There a photo's shorter
  side is first made 512, here it is as published; and there are photometric
  distortion, a limit on one class in a crop, an auxiliary head and a least rate
  of 1e-4, here not.
* the network and all else: the authors' for VOC.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's network with the usual schedule of ADE20K."""
  config = default_config()
  config.data.name = 'ade20k'
  config.data.train_split = 'train'
  config.optimizer.learning_rate = 0.01
  config.optimizer.weight_decay = 5e-4
  config.train.steps = 160_000
  config.train.eval_every = 16_000
  return config
