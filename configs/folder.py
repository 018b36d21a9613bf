"""Your own photos and masks, EMANet-512 with ResNet-50 from ImageNet weights.

Data: images/ and masks/ with files of the same names and classes.txt, in D (or
what labelme2voc.py or CVAT's "Segmentation mask" export, or lists of pairs;
which of them are for training and what masks may hold is in
emanet_jax/data/datasets/folder.py). The number of classes comes from
classes.txt; nothing here depends on it.

Crops for training are cut at photos' native size, and evaluation runs at it:
shrink photos of a phone first, to about 1000 pixels, and masks with them, by
nearest neighbour, which makes no new values.

  python -m emanet_jax.tools.prepare_data folder --manual_dir D --data_dir R
  python -m emanet_jax.tools.prepare_data folder --data_dir R --preview
  python -m emanet_jax.main --config configs/folder.py --workdir runs/mine \
      --config.data.data_dir=R --config.init_from=pretrained/resnet50

Look at the preview before training: it shows crops with their labels, and
stripes where nothing is scored. R holds one folder's records: give another set
another R, and delete R/folder to read D anew.

Two classes, such as object or not: masks of 0 and 1 need their two names in
classes.txt, a line each. In masks of 0 and 255, 255 would be ignored, so
classes.txt says what the greys mean:

  background 0 0 0
  object 255 255 255

Weights as in configs/voc.py, of ResNet-50; those of a trained network serve as
well, and their classifier is left out where the number of classes differs. Not
run here yet. The values are VOC's but for those below, which are ours for a few
hundred to a few thousand photos; what to change first:
"""

import ml_collections

from emanet_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
  """VOC's recipe for a smaller set."""
  config = default_config()
  config.data.name = 'folder'
  config.data.train_split = 'train'
  # About the shorter side of the photos; less if memory does not suffice.
  config.data.crop_size = 513
  # Off where left and right differ in meaning.
  config.data.flip = True
  config.model.backbone.depth = 50  # 101 or 152 with their weights
  # So that ignored pixels do not weaken the rest.
  config.loss.cross_entropy.average = 'valid'
  # Hard pixels only, where a class covers very few: 0.7, say.
  config.loss.cross_entropy.ohem_threshold = 0.0
  # Of batches of 16. Halve the rate with the batch.
  config.train.batch_size = 16
  config.optimizer.learning_rate = 9e-3
  # Some 100 epochs of 800 photos.
  config.train.steps = 5_000
  config.train.eval_every = 500
  config.train.checkpoint_every = 500
  return config
