"""CamVid road scenes from scratch, a small network for two CPU cores.

Data as in configs/camvid.py, prepared once.

  python -m emanet_jax.tools.prepare_data camvid --manual_dir D --data_dir R
  python -m emanet_jax.main --config configs/camvid_small.py \
      --workdir runs/camvid_small --config.data.data_dir=R

A narrow ResNet (8 bottlenecks, widths 16 to 128 before expansion) at output
stride 8, EM attention of 128 channels and 64 bases; 3000 steps of 8 crops of
241². Hard example mining stands in for the class weights that small data sets
with rare classes want.

README.md, under Results, has the scores and times that were seen on two cores.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """The defaults' recipe for a small network without ImageNet weights."""
  config = default_config()
  config.data.name = 'camvid'
  config.data.train_split = 'train'
  config.data.crop_size = 241
  config.data.scales = (0.75, 1.0, 1.25, 1.5)
  config.data.num_threads = 2

  config.model.norm_momentum = 0.95  # from scratch, statistics must follow
  backbone = config.model.backbone
  backbone.stage_sizes = (2, 2, 2, 2)
  backbone.width = 16
  backbone.stem_widths = (16, 16, 32)
  head = config.model.head
  head.channels = 128
  head.out_channels = 128

  config.loss.cross_entropy.average = 'valid'
  config.loss.cross_entropy.ohem_threshold = 0.7
  config.loss.cross_entropy.ohem_min_kept = 60_000  # of 8 × 241² = 464,648
  config.optimizer.learning_rate = 0.1
  config.optimizer.decay_every = 0
  config.optimizer.weight_decay = 5e-4
  config.train.steps = 3_000
  config.train.batch_size = 8
  config.train.eval_every = 1_000
  config.train.checkpoint_every = 500
  return config
