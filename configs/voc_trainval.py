"""PASCAL VOC 2012 for the test server: the last stage, on trainval.

The paper's scores on VOC test, mIoU 87.7 with ResNet-101 and 88.2 with
ResNet-152, take three stages: COCO, 30000 steps on trainaug and 30000 on
trainval (the authors' README). This is the third.

Data: as in configs/voc.py; trainval needs VOCtrainval_11-May-2012.tar alone.
Weights: those of the second stage. COCO is not provided as a first; without it,
the authors' released checkpoint stands for the first two, as it was trained on
trainaug from ImageNet weights. Expect less than 87.7 from it.

  python -m emanet_jax.tools.prepare_data voc2012 --manual_dir D --data_dir R
  python -m emanet_jax.tools.convert_torch final.pth pretrained/emanet101
  python -m emanet_jax.main --config configs/voc_trainval.py \
      --workdir runs/voc_trainval --config.data.data_dir=R \
      --config.init_from=pretrained/emanet101

trainval holds val, so the scores on val while it trains only tell that it does.
The test photos are the data set voc2012_test. Not run here yet: no time or
score of ours to give. From where each value is:

* 30000 steps on trainval: the authors' README.
* rate 1e-4: the paper's, not verified (after 1e-3 on trainaug, not verified
  either); the authors' code has the rate for val alone.
* all else: the authors' for val, which are the defaults.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """Changes the split and the learning rate alone."""
  config = default_config()
  config.data.train_split = 'trainval'
  config.optimizer.learning_rate = 1e-4
  return config
