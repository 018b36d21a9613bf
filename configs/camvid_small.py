"""CamVid from scratch, small model (two cores)."""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  config = default_config()
  config.data.name = 'camvid'
  config.data.train_split = 'train'
  config.data.crop_size = 241
  config.data.scales = (0.75, 1.0, 1.25, 1.5)
  config.data.num_threads = 2

  config.model.norm_momentum = 0.95
  backbone = config.model.backbone
  backbone.stage_sizes = (2, 2, 2, 2)
  backbone.width = 16
  backbone.stem_widths = (16, 16, 32)
  head = config.model.head
  head.channels = 128
  head.out_channels = 128
  head.num_bases = 64

  config.loss.average = 'valid'
  config.optimizer.learning_rate = 0.1
  config.optimizer.decay_every = 0
  config.optimizer.weight_decay = 5e-4
  config.train.steps = 3000
  config.train.batch_size = 8
  return config
