"""What is prepared is what was published."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data import datasets
from emanet_jax.data.datasets import shapes as shapes_module
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from tests.tiny import open_dataset


def open_partial(make_config, name, root, tmp_path, **changes):
  config = make_config(
    name,
    manual_dir=str(root),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    **changes,
  )
  return open_dataset(config)


def ids(dataset, split):
  return [e['id'] for e in pipeline.evaluation_examples(dataset, split)]


@pytest.mark.parametrize('name', datasets.known_datasets())
def test_spec_is_consistent(name):
  spec = datasets.get_dataset(name).SPEC
  assert spec.name == name
  assert len(set(spec.classes)) == spec.num_classes == len(spec.palette)
  assert len(set(spec.palette)) == spec.num_classes
  assert all(0 <= v <= 255 for color in spec.palette for v in color)
  assert spec.licence
  assert spec.ignore_label == 255


def test_unknown_name_lists_the_known_ones():
  with pytest.raises(UserError, match=r'camvid, .*shapes, voc2012'):
    datasets.get_dataset('voc2013')


def test_helpers_are_no_data_sets():
  with pytest.raises(UserError, match='Unknown data set'):
    datasets.get_dataset('builder')


def test_camvid_void_is_ignored_and_both_suffixes_do(
  camvid, make_config, tmp_path
):
  dataset = open_partial(make_config, 'camvid', camvid, tmp_path)
  assert dataset.counts == {'train': 3, 'val': 2}
  assert ids(dataset, 'train') == ['train0', 'train1', 'train2']
  for i, example in enumerate(pipeline.evaluation_examples(dataset, 'train')):
    assert set(np.unique(example['label'])) == {0, i, 10, 255}
    assert example['image'].shape == (30, 40, 3)


def test_an_exif_orientation_is_ignored(camvid, make_config, tmp_path):
  path = camvid / 'train' / 'train0.jpg'
  image = Image.open(path)
  exif = image.getexif()
  exif[0x0112] = 6  # Turn by 90 degrees.
  image.save(path, exif=exif)
  dataset = open_partial(make_config, 'camvid', camvid, tmp_path)
  example = next(pipeline.evaluation_examples(dataset, 'train'))
  assert example['image'].shape == (30, 40, 3)


def test_shapes_depend_on_split_and_index_only():
  first = shapes_module.draw_example('train', 3)
  np.testing.assert_equal(first, shapes_module.draw_example('train', 3))
  for other in (('train', 4), ('val', 3)):
    image, _ = shapes_module.draw_example(*other)
    assert not np.array_equal(image, first[0])


def test_shapes_have_all_classes_few_sizes_and_thin_borders(shapes):
  dataset, _ = shapes
  assert dataset.counts == dataset.spec.num_examples
  counts, sizes = np.zeros(256), set()
  for example in pipeline.evaluation_examples(dataset, 'val'):
    counts += np.bincount(example['label'].ravel(), minlength=256)
    sizes.add(example['label'].shape)
  assert len(sizes) <= 4
  share = counts / counts.sum()
  assert (share[:7] > 0.015).all()
  assert share[7:255].sum() == 0
  assert 0.02 < share[255] < 0.1


def test_real_voc_is_read(real_data, make_config, tmp_path):
  root = real_data('VOCdevkit')
  dataset = open_partial(make_config, 'voc2012', root, tmp_path)
  folder = root / 'VOCdevkit' / 'VOC2012'
  for split in dataset.counts:
    for example in pipeline.evaluation_examples(dataset, split):
      path = folder / 'SegmentationClass' / f'{example["id"]}.png'
      raw = np.asarray(Image.open(path))
      np.testing.assert_array_equal(example['label'], raw)
      # The annotators' contours: a photo as RGB, labels as indices.
      assert example['image'].shape == (*raw.shape, 3)


def test_real_camvid_is_complete(real_data, make_config, tmp_path):
  root = real_data('CamVid')
  config = make_config('camvid', manual_dir=str(root), data_dir=str(tmp_path))
  dataset = open_dataset(config)
  assert dataset.counts['train'] == 367
  assert dataset.counts['val'] == 101
  example = next(pipeline.evaluation_examples(dataset, 'val'))
  photo = next((root / 'CamVid' / 'val').glob(f'{example["id"]}.*'))
  want = np.asarray(Image.open(photo).convert('RGB')).astype(int)
  # Two JPEG decoders may differ by a few levels, but not in channel order.
  assert np.abs(example['image'] - want).mean() < 1


def test_importing_the_specs_needs_no_data_library():
  code = (
    'import sys; import emanet_jax.data.spec, emanet_jax.data.input.transforms;'
    'print([m for m in ("tensorflow_datasets", "grain", "tensorflow", "jax")'
    ' if m in sys.modules])'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.strip() == '[]'
