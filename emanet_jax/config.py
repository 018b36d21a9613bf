"""Every setting there is, with its default and meaning.

A run book in `configs/` starts from `default_config()` and changes what it
must; the command line changes any leaf: `--config.train.steps=100`.

The options of heads, backbones, losses, optimizers, augmentations and metrics
stand in their own files, as the keyword arguments of `create`: see
`emanet_jax.parts`. Where a section has a `name`, that chooses the part and
brings its options, with their defaults: `--config.model.head.name=fcn`.
"""

import json
from typing import Any, ClassVar

import ml_collections
from ml_collections import config_dict

from emanet_jax import parts


class Choice(ml_collections.ConfigDict):
  """A section for one part of a folder.

  Setting `name` to another part replaces the options of the old one by those of
  the new one, with their defaults; keys of the section's own stay. `update`
  sets it first; `update_from_flattened_dict` goes by the order of its keys.

  Attributes:
    FOLDER: Of the parts to choose from.
    OWN: Keys that stay whatever is chosen.
  """

  FOLDER: ClassVar[parts.Folder]
  OWN: ClassVar[tuple[str, ...]] = ('name',)

  @classmethod
  def of(cls, name: str, **values: Any) -> 'Choice':
    """The section for a part, with values other than the defaults."""
    return cls({'name': name, **_fields(cls.FOLDER, name), **values})

  def __setitem__(self, key: str, value: Any) -> None:
    """Sets a key; of `name`, see the class. UserError for an unknown part."""
    if key == 'name' and value != self.get('name', value):
      fields = _fields(self.FOLDER, value)
      with self.unlocked():
        for old in set(self) - set(self.OWN):
          del self[old]
        for new, default in fields.items():
          super().__setitem__(new, default)
    super().__setitem__(key, value)

  def update(self, *other: Any, **values: Any) -> None:
    """As of any ConfigDict, the name first, whatever the order."""
    given = dict(*other, **values)
    if 'name' in given:
      self['name'] = given.pop('name')
    super().update(given)


class _Backbone(Choice):
  FOLDER = parts.BACKBONES


class _Head(Choice):
  FOLDER = parts.HEADS


class _AuxiliaryHead(Choice):
  FOLDER = parts.AUXILIARY_HEADS
  OWN = ('name', 'weight')


class _Optimizer(Choice):
  FOLDER = parts.OPTIMIZERS


def _fields(folder: parts.Folder, name: str) -> dict[str, Any]:
  """A part's options as fields; those without a default take any value."""
  return {
    key: config_dict.placeholder(object) if value is None else value
    for key, value in folder.options(name).items()
  }


def _all_of(
  folder: parts.Folder, own: dict[str, dict[str, Any]], rest: dict[str, Any]
) -> ml_collections.ConfigDict:
  """A section for each part of a folder, with keys of the section's own.

  Args:
    folder: Of the parts.
    own: By a part's name, its section's own keys.
    rest: Those of all other parts' sections.
  """
  return ml_collections.ConfigDict(
    {
      name: {**own.get(name, rest), **_fields(folder, name)}
      for name in folder.names()
    }
  )


def default_config() -> ml_collections.ConfigDict:
  """The authors' network and recipe (VOC 2012, ResNet-101, output stride 8)."""
  config = ml_collections.ConfigDict()
  config.seed = 0  # of initialisation, dropout, shuffling and augmentation
  # Weights to start from: a workdir, of a run or of tools.convert_torch, or
  # one of its steps (W/checkpoints/2000); '' = none.
  config.init_from = ''
  config.init_backbone_only = False  # leave its head, even where it fits
  config.model = _model()
  config.data = _data()
  # Terms that add up: each file of training/losses, times its weight; 0 = off.
  config.loss = _all_of(
    parts.LOSSES, {'cross_entropy': {'weight': 1.0}}, {'weight': 0.0}
  )
  config.optimizer = _Optimizer.of('sgd')  # with its schedule
  config.mesh = _mesh()
  config.train = _train()
  config.eval = _eval()
  config.predict = _predict()
  return config.lock()  # so that a misspelt key is an error


def _model() -> ml_collections.ConfigDict:
  model = ml_collections.ConfigDict()
  # Of features: 'auto' = bfloat16 on accelerators, float32 on CPUs; a run that
  # goes on keeps what it began with.
  model.dtype = 'auto'
  model.convolution = 'fast'  # 'flax': as its layers do it, to compare with
  model.norm_momentum = 0.9997  # of running statistics; PyTorch's 3e-4
  model.align_corners = True
  model.backbone = _Backbone.of('resnet')
  model.head = _Head.of('ema')
  # A second head, on the stage before the last, for its loss in training alone:
  # `weight` is that of its loss beside the main one, 0 = no such head.
  model.auxiliary_head = _AuxiliaryHead.of(
    'fcn', weight=0.0, channels=256, num_convs=1
  )
  return model


def _data() -> ml_collections.ConfigDict:
  data = ml_collections.ConfigDict()
  data.name = 'voc2012'
  data.manual_dir = ''  # where the downloaded data set lies; read once
  data.data_dir = ''  # where prepared records are kept; '' = ./data
  data.allow_partial = False  # accept fewer images than published
  data.train_split = 'trainaug'
  data.eval_split = 'val'
  data.crop_size = 513  # pixels, square
  data.scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # one drawn an example
  data.flip = True  # mirrored left to right half of the time
  data.rotation = 0.0  # of the crop, uniform in ± x degrees; 0 = off
  # Of photos, before the crop: each file of data/input/augmentations.
  data.augmentations = _all_of(parts.AUGMENTATIONS, {}, {})
  data.num_threads = 16  # each makes a batch at a time
  data.prefetch = 4  # batches ready ahead; at least one a thread
  return data


def _train() -> ml_collections.ConfigDict:
  train = ml_collections.ConfigDict()
  train.steps = 30_000
  train.batch_size = 16  # over all devices and accumulation steps
  # Micro-batches of a step; normalisation, bases, OHEM and 'valid' averages see
  # one at a time.
  train.accumulation_steps = 1
  train.log_every = 20
  train.eval_every = 2_000  # and at the end; 0 = never, as with --follow
  train.checkpoint_every = 2_000  # and before every evaluation
  train.keep_checkpoints = 3  # the latest
  train.keep_best = 1  # beside them, those of the greatest mIoU; 0 = none
  return train


def _mesh() -> ml_collections.ConfigDict:
  """Devices share the images of a batch out; what else they share."""
  mesh = ml_collections.ConfigDict()
  mesh.fsdp = 1  # parts that parameters and optimizer state are split into
  mesh.space = 1  # parts that each image's rows are split into
  return mesh


def _eval() -> ml_collections.ConfigDict:
  evaluation = ml_collections.ConfigDict()
  # Fewer of large images; None = 8, and on CPUs 1.
  evaluation.batch_size = config_dict.placeholder(int)
  # Images share batches of few shapes: 0 = at most four, chosen for little
  # padding; else each side is rounded up to one more than a multiple of this.
  # The results are equal; more shapes waste less on padding, but each is
  # compiled. The output stride gives every image just its own size.
  evaluation.shape_step = 0
  evaluation.num_pictures = 8  # examples on the overlay and attention pages
  # Scores: each file of evaluation/metrics.
  evaluation.metrics = _all_of(parts.METRICS, {}, {'enabled': True})
  # Average over views, in evaluation and prediction; not while training, whose
  # evaluations have the windows alone.
  evaluation.multi_scale = False
  evaluation.scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
  # Each scale also mirrored left to right; None = where multi_scale is.
  evaluation.flip = config_dict.placeholder(bool)
  evaluation.window = 0  # pixels; looks through sliding windows, 0 = does not
  evaluation.window_stride = 0  # pixels between windows
  return evaluation


def _predict() -> ml_collections.ConfigDict:
  """How photos are looked at is said by `eval`."""
  prediction = ml_collections.ConfigDict()
  prediction.input = ''  # a photo, a folder of them, or a quoted glob pattern
  prediction.split = ''  # instead of it: a split of a prepared data set
  prediction.dataset = ''  # that set, '' = data.name; as voc2012_test
  prediction.output = ''  # folder of the results; '' = WORKDIR/predict
  prediction.overwrite = False  # results that exist
  prediction.probabilities = False  # of all classes too: h×w×classes float16
  prediction.attention = False  # pages on it, of heads that have any
  prediction.bases = ()  # ema's to be drawn; () = those that differ most
  # (row, column): what it attends to; of ema, which bases own it, and where
  # these are. Without bases it has to be given.
  prediction.pixel = ()
  # Instead of label maps, an archive for a test server: 'voc2012',
  # 'cityscapes' or 'ade20k'.
  prediction.submission = ''
  return prediction


def as_plain_dict(config: ml_collections.ConfigDict) -> dict:
  """The configuration as JSON holds it."""
  return json.loads(config.to_json())
