"""Generated shapes, a small network: try this first.

Needs no data and a few minutes on two cores:

  python -m emanet_jax.main --config configs/shapes.py --workdir runs/shapes

README.md, under Results, has the score and the time that were seen.
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """A narrow ResNet of four blocks and 16 bases, from random weights."""
  config = default_config()
  config.data.name = 'shapes'
  config.data.train_split = 'train'
  config.data.crop_size = 65
  config.data.scales = (0.75, 1.0, 1.25)
  config.data.num_threads = 2

  config.model.norm_momentum = 0.9  # from scratch, the statistics must follow
  backbone = config.model.backbone
  backbone.stage_sizes = (1, 1, 1, 1)
  backbone.width = 24
  backbone.stem_widths = (24, 24, 48)
  head = config.model.head
  head.channels = 128
  head.out_channels = 64
  head.num_bases = 16

  config.optimizer.learning_rate = 0.1
  config.train.steps = 320
  config.train.batch_size = 16
  config.train.eval_every = 160
  config.train.checkpoint_every = 160
  config.eval.batch_size = 16
  return config
