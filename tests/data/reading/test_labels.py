"""Label files of all kinds yield the class indices that they hold."""

import numpy as np
import pytest

from emanet_jax.data.reading.labels import decode_rle
from tests.data.run_lengths import run_lengths


def box():
  mask = np.zeros((5, 7), bool)
  mask[1:4, 2:6] = True
  return mask


def two_boxes():
  """Large, and with runs that grow and shrink by more than a character."""
  mask = np.zeros((300, 200), bool)
  mask[20:280, 10:190] = True
  mask[100:102, 50:60] = False
  mask[:, 199] = True
  return mask


# What pycocotools 2.0 makes of these masks.
COMPRESSED = {
  'box': (box(), ';32000004'),
  'empty': (np.zeros((3, 3), bool), '9'),
  'full': (np.ones((3, 3), bool), '09'),
  'noise': (
    np.random.default_rng(0).random((13, 17)) < 0.5,
    '322O0002ON10O023ON0O01OO0010O20N010O1000011O60H10O01120N0OO00022ON0100'
    'OO00210000O21MN01032MN012OM1004OM0O10O030M51K0000',
  ),
  'two boxes': (
    two_boxes(),
    r'\n2T8X1'
    + 78 * '0'
    + r'\JjNR3V1'
    + 9 * 'nLjNR3V1'
    + 'b2'
    + 258 * '0'
    + 'hc2X1',
  ),
}


@pytest.mark.parametrize('name', COMPRESSED)
def test_plain_runs_decode(name):
  mask, _ = COMPRESSED[name]
  np.testing.assert_array_equal(decode_rle(run_lengths(mask), mask.shape), mask)


@pytest.mark.parametrize('name', COMPRESSED)
def test_compressed_runs_decode(name):
  mask, counts = COMPRESSED[name]
  np.testing.assert_array_equal(decode_rle(counts, mask.shape), mask)


@pytest.mark.parametrize(
  ('counts', 'message'),
  [
    ('', 'cut short'),
    (';3200000T', 'cut short'),
    (';3200000', 'do not make 5x7'),
    (';32000005', 'do not make 5x7'),
    ('X1K', 'negative'),
    ([], 'do not make 5x7'),
    ([30, 4], 'do not make 5x7'),
    ([40, -5], 'negative'),
    ([17.5, 17.5], 'do not make 5x7'),
    (['35'], 'do not make 5x7'),
    ([[1], [2, 3]], 'shape'),
  ],
)
def test_other_runs_are_refused(counts, message):
  with pytest.raises(ValueError, match=message):
    decode_rle(counts, (5, 7))
