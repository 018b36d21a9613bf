"""Whether a checkpoint's configuration and a run's go together."""

from typing import Any

import ml_collections
from flax import traverse_util

from emanet_jax import parts
from emanet_jax.config import as_plain_dict, default_config

# What may differ between a checkpoint and the run that goes on from it: none of
# it changes more of the training's numbers than their rounding. Parts name such
# options of theirs themselves.
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
  'mesh.',
  'model.convolution',
  'predict.',
  'train.checkpoint_every',
  'train.eval_every',
  'train.keep_best',
  'train.keep_checkpoints',
  'train.log_every',
)

# What else may differ for an evaluation: the weights mean the same.
_FREE_IN_EVALUATION = (
  'model.align_corners',
  'model.auxiliary_head.',
  'model.dtype',
  'model.norm_momentum',
)

# Keys of older configurations, and what they are called today.
_RENAMED = {
  'data.blur': 'data.augmentations.color.blur',
  'data.brightness': 'data.augmentations.color.brightness',
  'data.contrast': 'data.augmentations.color.contrast',
  'data.hue': 'data.augmentations.color.hue',
  'data.saturation': 'data.augmentations.color.saturation',
  'loss.average': 'loss.cross_entropy.average',
  'loss.label_smoothing': 'loss.cross_entropy.label_smoothing',
  'loss.ohem_min_kept': 'loss.cross_entropy.ohem_min_kept',
  'loss.ohem_threshold': 'loss.cross_entropy.ohem_threshold',
}

_CHOICES = {
  'model.backbone': parts.BACKBONES,
  'model.head': parts.HEADS,
  'model.auxiliary_head': parts.AUXILIARY_HEADS,
  'optimizer': parts.OPTIMIZERS,
}


def differences(
  saved: dict, config: ml_collections.ConfigDict, *, evaluating: bool = False
) -> list[str]:
  """What keeps a run from using a checkpoint.

  Args:
    saved: The checkpoint's configuration, from `as_plain_dict`, of this version
      or an older one.
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
  free_options = {
    f'{key}.{option}'
    for key, folder in _CHOICES.items()
    for option in folder.free(_get(config, key).name, evaluating=evaluating)
  }
  then, now, absent = as_today(saved), _flat(as_plain_dict(config)), '(absent)'
  if evaluating and then.get('data.name') == '':  # of converted weights
    then['data.name'] = now['data.name']
  if now['model.dtype'] == 'auto':  # as in the checkpoint
    now['model.dtype'] = then['model.dtype']
  return [
    f'  {key}: checkpoint {then.get(key, absent)!r}, '
    f'now {now.get(key, absent)!r}'
    for key in sorted(then.keys() | now.keys())
    if then.get(key, absent) != now.get(key, absent)
    and key.startswith(checked)
    and not key.startswith(free)
    and key not in free_options
  ]


def as_today(saved: dict) -> dict[str, Any]:
  """A checkpoint's configuration with all keys of today, dotted.

  A key that it lacks had the value that was in effect before the key existed:
  its default; those of parts are of the parts that it names.
  """
  given = {_RENAMED.get(k, k): v for k, v in _flat(saved).items()}
  config = default_config()
  for key, folder in _CHOICES.items():
    if (name := given.get(f'{key}.name')) in folder.names():
      _get(config, key).name = name
  return {**_flat(as_plain_dict(config)), **given}


def model_of_today(model: dict) -> dict[str, Any]:
  """The `model` part of a configuration of any version, dotted.

  Without what changes no more of its numbers than their rounding.
  """
  found = as_today({'model': model})
  return {
    k: v
    for k, v in found.items()
    if k.startswith('model.') and not k.startswith(_FREE)
  }


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
  for part in key.split('.'):
    config = config[part]
  return config


def _flat(tree: dict) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep='.')
