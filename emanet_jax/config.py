"""Every setting there is, with its default and meaning.

A run book in `configs/` starts from `default_config()` and changes what it
must; the command line changes any leaf: `--config.train.steps=100`.
"""

import json

import ml_collections

# What may differ between a checkpoint and the run that goes on from it: none of
# it changes more of the training's numbers than their rounding.
_FREE = (
  'init_backbone_only',
  'init_from',
  'data.allow_partial',
  'data.data_dir',
  'data.eval_split',
  'data.manual_dir',
  'data.num_threads',
  'data.prefetch',
  'eval.',
  'model.backbone.remat',
  'model.convolution',
  'model.head.eval_stages',
  'predict.',
  'train.checkpoint_every',
  'train.eval_every',
  'train.keep_checkpoints',
  'train.log_every',
)

# What else may differ for an evaluation: the weights mean the same.
_FREE_IN_EVALUATION = (
  'model.auxiliary_head.',
  'model.backbone.multi_grid',
  'model.backbone.output_stride',
  'model.dtype',
  'model.head.dropout_rate',
  'model.head.gradient',
  'model.head.momentum',
  'model.head.renormalize',
  'model.norm_momentum',
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
  config.loss = _loss()
  config.optimizer = _optimizer()
  config.train = _train()
  config.eval = _eval()
  config.predict = _predict()
  return config.lock()  # so that a misspelt key is an error


def _model() -> ml_collections.ConfigDict:
  model = ml_collections.ConfigDict()
  model.dtype = 'float32'  # of features; 'bfloat16' on accelerators
  model.convolution = 'fast'  # 'flax': as its layers do it, to compare with
  model.norm_momentum = 0.9997  # of running statistics; PyTorch's 3e-4
  model.align_corners = True
  backbone = model.backbone = ml_collections.ConfigDict()
  backbone.name = 'resnet'
  backbone.depth = 101  # 50, 101 or 152
  backbone.stage_sizes = ()  # four block counts, instead of a depth
  backbone.width = 64  # planes of the first stage
  backbone.stem_widths = (64, 64, 128)  # three: deep 3×3 stem; one: 7×7 stem
  backbone.output_stride = 8  # 8, 16 or 32
  backbone.multi_grid = (1, 2, 4)
  # In training, compute each block anew for its gradient: less memory, slower.
  backbone.remat = False
  head = model.head = ml_collections.ConfigDict()
  head.name = 'ema'
  head.channels = 512
  head.out_channels = 256
  head.concat_input = False  # one 3×3 more, on the backbone's features beside
  head.dropout_rate = 0.1
  head.num_bases = 64  # K
  head.num_stages = 3  # T in training
  head.eval_stages = 0  # T in evaluation; 0 = as in training
  head.momentum = 0.9  # α, of the bases' moving average
  head.renormalize = False  # normalise the batch mean that enters it
  head.temperature = 1.0  # λ
  head.basis_norm = 'l2'  # 'l2', 'layer' or 'none'
  head.maintenance = 'moving_average'  # or 'parameter', 'none'
  head.gradient = 'cut'  # through EM: 'cut', 'last' or 'full'
  auxiliary = model.auxiliary_head = ml_collections.ConfigDict()
  auxiliary.weight = 0.0  # of its loss beside the main one; 0 = no such head
  auxiliary.channels = 256
  auxiliary.dropout_rate = 0.1
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
  # Augmentations beyond the authors', 0 = off. x is uniform around no change:
  data.rotation = 0.0  # ± x degrees about the middle of the photo's part
  data.brightness = 0.0  # factor of 1 ± x, not below 0
  data.contrast = 0.0  # likewise
  data.saturation = 0.0  # likewise
  data.hue = 0.0  # ± x turns of the colour circle, up to 0.5
  data.blur = 0.0  # probability of a Gaussian blur, sigma 0.1..2 pixels
  data.num_threads = 16  # each makes a batch at a time
  data.prefetch = 4  # batches ready ahead; at least one a thread
  return data


def _loss() -> ml_collections.ConfigDict:
  loss = ml_collections.ConfigDict()
  loss.average = 'all'  # over 'all' pixels as the authors, or the 'valid' ones
  loss.label_smoothing = 0.0
  # Online hard example mining: keep pixels whose true class gets less than
  # this probability; 0 = off.
  loss.ohem_threshold = 0.0
  loss.ohem_min_kept = 100_000  # pixels kept at least, of a micro-batch
  return loss


def _optimizer() -> ml_collections.ConfigDict:
  optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 9e-3
  optimizer.bias_multiplier = 2.0  # of the learning rate, on every bias
  optimizer.momentum = 0.9
  optimizer.weight_decay = 1e-4  # on convolution kernels alone
  optimizer.poly_power = 0.9
  optimizer.decay_every = 10  # steps between changes of the rate; 0 = smooth
  return optimizer


def _train() -> ml_collections.ConfigDict:
  train = ml_collections.ConfigDict()
  train.steps = 30_000
  train.batch_size = 16  # over all devices and accumulation steps
  # Micro-batches of a step; normalisation, bases, OHEM and 'valid' averages see
  # one at a time.
  train.accumulation_steps = 1
  train.log_every = 20
  train.eval_every = 2_000
  train.checkpoint_every = 2_000  # and before every evaluation
  train.keep_checkpoints = 3
  return train


def _eval() -> ml_collections.ConfigDict:
  evaluation = ml_collections.ConfigDict()
  evaluation.batch_size = 8
  # Images share batches of few shapes: 0 = one for the whole split, or each
  # side rounded up to one more than a multiple of this. The results are equal;
  # more shapes waste less on padding, but each is compiled. The output stride
  # gives every image just its own size.
  evaluation.shape_step = 0
  evaluation.num_pictures = 8  # examples on the overlay and attention pages
  # Average over views, in evaluation and prediction; not while training.
  evaluation.multi_scale = False
  evaluation.scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
  evaluation.flip = True  # each scale also mirrored left to right
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
  prediction.attention = False  # pages on the bases of EM attention
  prediction.bases = ()  # to be drawn there; () = those that differ most
  prediction.pixel = ()  # (row, column): which bases own it, and where they are
  # Instead of label maps, an archive for a test server: 'voc2012',
  # 'cityscapes' or 'ade20k'.
  prediction.submission = ''
  return prediction


def differences(
  saved: dict, config: ml_collections.ConfigDict, *, evaluating: bool = False
) -> list[str]:
  """What keeps a run from using a checkpoint.

  Args:
    saved: The checkpoint's configuration, from `as_plain_dict`.
    config: The run's.
    evaluating: Only the network and the data set must agree, and of the
      network what its weights depend on.

  Returns:
    A line for each key that differs and may not, with both values.
  """
  checked, free = ('',), _FREE
  if evaluating:
    checked = ('model.', 'data.name')
    free = (*_FREE, *_FREE_IN_EVALUATION)
  then, now, absent = _flat(saved), _flat(as_plain_dict(config)), '(absent)'
  if evaluating and then.get('data.name') == '':  # of converted weights
    then['data.name'] = now['data.name']
  return [
    f'  {key}: checkpoint {then.get(key, absent)!r}, '
    f'now {now.get(key, absent)!r}'
    for key in sorted(then.keys() | now.keys())
    if then.get(key, absent) != now.get(key, absent)
    and key.startswith(checked)
    and not key.startswith(free)
  ]


def as_plain_dict(config: ml_collections.ConfigDict) -> dict:
  """The configuration as JSON holds it."""
  return json.loads(config.to_json())


def _flat(tree: dict, prefix: str = '') -> dict:
  leaves = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      leaves.update(_flat(value, f'{prefix}{key}.'))
    else:
      leaves[prefix + key] = value
  return leaves
