"""Configurations of version 0.1 mean today what they meant then."""

import json
import pathlib

import pytest

from emanet_jax.config import as_plain_dict, default_config
from emanet_jax.state.compatibility import (
  as_today,
  differences,
  model_of_today,
)
from tests import tiny

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'workdir_0_1.json'


@pytest.fixture
def saved():
  """`tests/tiny.py`'s configuration as version 0.1 saved it."""
  return json.loads(GOLDEN.read_text())['config']


@pytest.mark.parametrize('evaluating', [False, True])
def test_the_same_run_book_differs_in_nothing(saved, evaluating):
  config = tiny.tiny_config()
  assert differences(saved, config, evaluating=evaluating) == []


@pytest.mark.parametrize(
  ('head', 'changes'),
  [
    ('fcn', {'head.dilation': 6, 'backbone.output_stride': 16}),
    ('psp', {'align_corners': False, 'head.align_corners': False}),
    ('uper', {'head.align_corners': True, 'backbone.multi_grid': (1, 1, 2)}),
    ('deeplabv3plus', {'head.align_corners': False, 'head.rates': (6, 12, 18)}),
  ],
)
def test_what_no_weight_depends_on_may_be_said_for_an_evaluation(head, changes):
  """As for converted networks, whose files do not tell it."""
  config = default_config()
  config.model.head.name = head
  saved = as_plain_dict(config)
  config.model.update_from_flattened_dict(changes)
  assert differences(saved, config, evaluating=True) == []
  assert len(differences(saved, config)) == len(changes)


def test_every_old_value_stands_under_a_key_of_today(saved):
  now = as_today(as_plain_dict(default_config()))
  assert as_today(saved).keys() == now.keys()
  saved['loss'] |= {'average': 'valid', 'ohem_threshold': 0.25}
  saved['data'] |= {'hue': 0.125, 'blur': 0.5}
  found = as_today(saved)
  assert found['loss.cross_entropy.average'] == 'valid'
  assert found['loss.cross_entropy.ohem_threshold'] == 0.25
  assert found['data.augmentations.color.hue'] == 0.125
  assert found['data.augmentations.color.blur'] == 0.5
  assert found['optimizer.name'] == 'sgd'
  assert found['model.auxiliary_head.name'] == 'fcn'
  assert found['model.auxiliary_head.num_convs'] == 1


@pytest.mark.parametrize(
  ('key', 'value', 'line'),
  [
    (
      'optimizer.warmup_steps',
      5,
      '  optimizer.warmup_steps: checkpoint 0, now 5',
    ),
    ('loss.dice.weight', 1.0, '  loss.dice.weight: checkpoint 0.0, now 1.0'),
    (
      'loss.cross_entropy.label_smoothing',
      0.1,
      '  loss.cross_entropy.label_smoothing: checkpoint 0.0, now 0.1',
    ),
    (
      'data.augmentations.color.hue',
      0.1,
      '  data.augmentations.color.hue: checkpoint 0.0, now 0.1',
    ),
  ],
)
def test_what_did_not_exist_had_its_value_in_effect(saved, key, value, line):
  config = tiny.tiny_config(**{key: value})
  assert differences(saved, config) == [line]
  assert differences(saved, config, evaluating=True) == []


def test_a_model_of_then_is_one_of_today(saved):
  now = as_plain_dict(tiny.tiny_config(model__dtype='float32'))['model']
  assert saved['model'] != now
  assert model_of_today(saved['model']) == model_of_today(now)
  now['head']['num_bases'] += 1
  assert model_of_today(saved['model']) != model_of_today(now)


def test_another_head_shows_its_name_and_all_options(saved):
  config = tiny.tiny_config()
  config.model.head.name = 'fcn'
  lines = differences(saved, config, evaluating=True)
  assert "  model.head.name: checkpoint 'ema', now 'fcn'" in lines
  assert "  model.head.num_bases: checkpoint 4, now '(absent)'" in lines
  assert "  model.head.num_convs: checkpoint '(absent)', now 0" in lines


@pytest.mark.parametrize(
  ('key', 'resuming', 'evaluating'),
  [
    ('train.keep_best', True, True),
    ('model.head.eval_stages', True, True),
    ('model.backbone.remat', True, True),
    ('eval.metrics.f1.enabled', True, True),
    ('model.head.dropout_rate', False, True),
    ('model.backbone.output_stride', False, True),
    ('model.auxiliary_head.channels', False, True),
    ('optimizer.clip_norm', False, True),
    ('model.head.num_stages', False, False),
  ],
)
def test_parts_say_what_may_differ(saved, key, resuming, evaluating):
  config = tiny.tiny_config()
  values = {'remat': True, 'enabled': False, 'output_stride': 16}
  config.update_from_flattened_dict({key: values.get(key.split('.')[-1], 1)})
  assert (differences(saved, config) == []) == resuming
  assert (differences(saved, config, evaluating=True) == []) == evaluating
