"""A user's own folder of two classes: what 255 means in its masks."""

import numpy as np
import pytest
from PIL import Image

from tests.data.datasets import miniature
from tests.data.datasets.own_folder import SIZE, flat, label, save, write
from tests.data.layouts import examples, prepare, write_photo


@pytest.fixture
def root(tmp_path):
  flat(tmp_path / 'raw')
  return tmp_path / 'raw'


def binary(root, high=255, dtype=np.uint8):
  """Masks of 0 and another value; no mask holds 1."""
  write(root / 'classes.txt', 'ground\nweed\n')
  for i in range(3):
    write_photo(root / f'images/{i}.jpg', *SIZE, seed=i)
    mask = np.zeros(SIZE, dtype)
    mask[i:, 5:20] = high
    save(root / f'masks/{i}.png', mask)


@pytest.mark.parametrize(
  ('high', 'dtype'), [(255, np.uint8), (65535, np.uint16)]
)
def test_masks_of_0_and_255(high, dtype, tmp_path):
  root = tmp_path / 'raw'
  binary(root, high, dtype)
  miniature.refuse(
    'folder',
    root,
    tmp_path,
    "No mask holds 1, 'weed'",
    'masks/1.png',
    'classes.txt, "ground 0 0 0" and "weed 255 255 255"',
  )
  write(root / 'classes.txt', 'ground 0 0 0\nweed 255 255 255\n')
  dataset = prepare('folder', root, tmp_path / 'prepared')
  for name, (_, got) in examples(dataset, 'train').items():
    want = np.zeros(SIZE, np.uint8)
    want[int(name) :, 5:20] = 1
    np.testing.assert_array_equal(got, want)


def test_two_classes_of_which_one_is_rare(tmp_path):
  """One pixel is enough, and an unreadable mask is another matter."""
  root = tmp_path / 'raw'
  binary(root)
  (root / 'masks/1.png').write_bytes(b'nothing')
  mask = np.asarray(Image.open(root / 'masks/2.png')).copy()
  mask[-1, -1] = 1
  save(root / 'masks/2.png', mask)
  dataset = prepare('folder', root, tmp_path / 'prepared', max_bad_share=0.4)
  assert dataset.counts == {'train': 1, 'val': 1}
  assert 'masks/1.png' in dataset.report()['bad'][0]


def two_colors(root, second):
  """Palette masks of 0 and 255 of which the palette says the colours."""
  write(root / 'classes.txt', f'ground 0 0 0\nweed {second}\n')
  for name in (f'{i:02}' for i in range(21)):
    mask = Image.fromarray(np.where(label(0) == 1, 255, 0).astype(np.uint8))
    mask.putpalette([v for v in range(256) for _ in range(3)])
    mask.save(root / f'masks/{name}.png')


def test_palette_masks_of_0_and_255(root, tmp_path):
  two_colors(root, '255 255 255')
  dataset = prepare('folder', root, tmp_path / 'out')
  for _, mask in examples(dataset, 'train').values():
    np.testing.assert_array_equal(mask, label(0) == 1)


@pytest.mark.parametrize(
  ('classes', 'value'),
  [
    ('ground 0 0 0\nweed 9 9 9\n', 255),  # index masks, white in no palette
    ('ground 0 0 0\nweed 255 255 255\nvoid 9 9 9\n', 9),
  ],
)
def test_masks_without_the_second_class_are_not_lectured(
  classes, value, root, tmp_path
):
  """The colours are set: what is ignored is meant to be."""
  write(root / 'classes.txt', classes)
  for path in (root / 'masks').iterdir():
    mask = Image.fromarray(np.where(label(0) == 1, value, 0).astype(np.uint8))
    if value == 255:
      mask.putpalette([0] * 768)
    mask.save(path)
  dataset = prepare('folder', root, tmp_path / 'out')
  for _, mask in examples(dataset, 'train').values():
    np.testing.assert_array_equal(mask == 255, label(0) == 1)
