"""COCO-Stuff 10k (171 classes), EMANet-512 with ResNet-101, the paper's recipe.

Data: cocostuff-10k-v1.1.zip, or what it unpacks to, in D; prepared once into R
(about 2 GB).

  python -m emanet_jax.tools.prepare_data coco_stuff10k --manual_dir D \
      --data_dir R
  python -m emanet_jax.main --config configs/coco_stuff10k.py \
      --workdir runs/coco_stuff10k --config.data.data_dir=R \
      --config.init_from=pretrained/resnet101

Weights as in configs/voc.py. Scores of the paper on the test split: mIoU 39.9,
and 37.6 with ResNet-50 (--config.model.backbone.depth=50 and its weights). Not
run here yet: no time or score of ours to give. Every value is the authors': as
they answered in their repository, crops of 513², 30000 steps, rate 9e-3 and
almost the same settings as for VOC, which are the defaults.

The set is published as 9000 training and 1000 test photos, both with labels:
the evaluations during training are on the split that is reported.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's recipe on another data set."""
  config = default_config()
  config.data.name = 'coco_stuff10k'
  config.data.train_split = 'train'
  config.data.eval_split = 'test'
  return config
