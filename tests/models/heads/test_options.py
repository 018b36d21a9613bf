"""What heads refuse, before anything is compiled; and a loss of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.models.heads.enc import presence_loss
from emanet_jax.parts import HEADS


@pytest.mark.parametrize(
  ('head', 'option', 'value', 'message'),
  [
    ('a2', 'num_maps', 0, 'of the a2 head, num_maps is 0; it must be ≥ 1'),
    ('ann', 'grids', (1, 0), r'head.grids is \(1, 0\); give one or more'),
    ('cc', 'recurrence', 0, 'of the cc head, recurrence is 0; it must be ≥ 1'),
    (
      'da',
      'branch_weight',
      -1.0,
      r'head.branch_weight is -1\.0; it must be ≥ 0',
    ),
    ('deeplabv3', 'num_convs', -1, r'head.num_convs is -1; it must be ≥ 0'),
    ('deeplabv3', 'projection_size', 2, r'projection_size is 2; it must be 1'),
    ('deeplabv3plus', 'low_channels', 0, r'low_channels is 0; it must be ≥ 1'),
    ('deeplabv3plus', 'rates', (), r'head.rates is \(\); give one or more'),
    ('dnl', 'temperature', 0.0, r'head.temperature is 0\.0; it must be > 0'),
    ('enc', 'se_weight', -1.0, r'head.se_weight is -1\.0; it must be ≥ 0'),
    (
      'gc',
      'dropout_rate',
      1.0,
      'of the gc head, dropout_rate is 1.0; it must be',
    ),
    (
      'ocr',
      'region_weight',
      -1.0,
      r'head.region_weight is -1\.0; it must be ≥ 0',
    ),
    ('psa', 'mask_size', 0, 'of the psa head, mask_size is 0; it must be ≥ 1'),
    ('segformer', 'channels', 0, 'channels is 0; it must be ≥ 1'),
    ('uper', 'grids', (), r'head.grids is \(\); give one or more'),
  ],
)
def test_an_option_is_refused(head, option, value, message):
  HEADS.create(head, 5, 0.9)
  with pytest.raises(UserError, match=message):
    HEADS.create(head, 5, 0.9, **{option: value})


@pytest.mark.parametrize(
  ('name', 'options'),
  [('ann', {}), ('enc', {'use_lateral': True}), ('ocr', {})],
)
def test_stages_of_several_resolutions_are_refused(name, options):
  head = HEADS.create(name, 5, 0.9, **options)
  features = tuple(jnp.zeros((1, n, n, 8)) for n in (9, 9, 9, 5))
  with pytest.raises(UserError, match=f'the {name} head .*output_stride to 8'):
    jax.eval_shape(
      lambda x: head.init(jax.random.key(0), x, train=False), features
    )


def test_the_presence_loss_is_the_mean_over_images_and_classes():
  logits = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -2.0]])
  label = np.array([[[0, 0], [2, 255]], [[255, 255], [255, 1]]])
  present = np.array([[1, 0, 1], [0, 1, 0]])
  probability = 1 / (1 + np.exp(-logits))
  expected = -np.log(np.where(present, probability, 1 - probability)).mean()
  got = presence_loss(jnp.array(logits), jnp.array(label))
  np.testing.assert_allclose(got, expected, rtol=1e-6)
