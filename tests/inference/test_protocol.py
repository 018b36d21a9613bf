"""How images are looked at, as options, text and a folder's name."""

import pytest

from emanet_jax.errors import UserError
from emanet_jax.inference.predictor import SINGLE_SCALE, create_protocol

GIVEN = {
  'multi_scale': False,
  'scales': (0.5, 1.0),
  'flip': None,
  'window': 0,
  'window_stride': 0,
}


@pytest.mark.parametrize(
  ('changes', 'scales', 'flip', 'name'),
  [
    ({}, (1.0,), False, ''),
    ({'flip': False}, (1.0,), False, ''),
    ({'flip': True}, (1.0,), True, 'flip'),
    ({'multi_scale': True}, (0.5, 1.0), True, 'scales_0.5_1_flip'),
    (
      {'multi_scale': True, 'flip': False},
      (0.5, 1.0),
      False,
      'scales_0.5_1',
    ),
    (
      {'window': 65, 'window_stride': 33, 'flip': True},
      (1.0,),
      True,
      'flip_window_65_33',
    ),
  ],
)
def test_flip_means_flip(changes, scales, flip, name):
  protocol = create_protocol(**{**GIVEN, **changes})
  assert (protocol.scales, protocol.flip) == (scales, flip)
  assert protocol.name == name
  assert (protocol == SINGLE_SCALE) == (name == '')


def test_it_is_told_in_words():
  told = str(create_protocol(**{**GIVEN, 'multi_scale': True}))
  assert told == 'scales 0.5, 1, mirrored too, whole images'
  windows = {**GIVEN, 'window': 65, 'window_stride': 33}
  assert str(create_protocol(**windows)) == 'one scale, windows of 65 every 33'


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'scales': ()}, 'eval.scales is'),
    ({'scales': (1.0, 0.0)}, 'eval.scales is'),
    ({'window': 9}, 'eval.window is 9 and eval.window_stride 0'),
    ({'window': 9, 'window_stride': 10}, 'stride of 1 to the window'),
  ],
)
def test_impossible_views_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    create_protocol(**{**GIVEN, **changes})
