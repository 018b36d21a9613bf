"""PASCAL VOC 2012, EMANet-512 with ResNet-101, the authors' recipe.

Data: VOCtrainval_11-May-2012.tar and SBD's benchmark.tgz (or the folder
SegmentationClassAug), or what they unpack to, in D; prepared once into R (about
2 GB). Weights: the authors' ImageNet ResNet-101 with a deep stem.

  python -m emanet_jax.tools.prepare_data voc2012 --manual_dir D --data_dir R
  python -m emanet_jax.tools.convert_torch resnet101-2a57e44d.pth \
      pretrained/resnet101
  python -m emanet_jax.main --config configs/voc.py --workdir runs/voc \
      --config.data.data_dir=R --config.init_from=pretrained/resnet101

Scores of the paper on val, single scale: mIoU 80.05 (its released checkpoint:
80.51). Not run here yet: no time or score of ours to give. Every value is the
authors' (settings.py, train.py): 30000 steps of 16 crops of 513², scales 0.5 to
2, rate 9e-3 with poly 0.9 changed every 10th step, twice that on biases, decay
1e-4 on convolution kernels, running statistics' momentum 3e-4 in PyTorch's
sense, loss averaged over all pixels, output stride 8, K 64, T 3, α 0.9.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """The defaults are this recipe."""
  return default_config()
