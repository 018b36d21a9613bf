"""Every bad input is an error that names the file and the remedy."""

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data import pipeline
from emanet_jax.errors import UserError
from tests.tiny import open_dataset


def cut(path):
  path.write_bytes(path.read_bytes()[:-200])


def save(path, array):
  Image.fromarray(np.asarray(array, np.uint8)).save(path)


def listed(root, line):
  path = root / 'ImageSets' / 'Segmentation' / 'train.txt'
  path.write_text(path.read_text() + line)


# What is done to a sound VOC devkit, and what the message must say.
VOC_FAULTS = {
  'image without label': (
    lambda r: (r / 'SegmentationClass/a.png').unlink(),
    ['SegmentationClass/a.png', 'has no label', 'unpack'],
  ),
  'label without image': (
    lambda r: (r / 'JPEGImages/a.jpg').unlink(),
    ['JPEGImages/a.jpg', 'has no photo', 'unpack'],
  ),
  'id in list without file': (
    lambda r: listed(r, 'zzz\n'),
    ["'zzz'", 'JPEGImages/zzz.jpg', 'does not exist'],
  ),
  'id twice': (
    lambda r: listed(r, 'a\n'),
    ["'a'", 'listed twice', 'Remove'],
  ),
  'label of another size': (
    lambda r: save(r / 'SegmentationClass/a.png', np.zeros((40, 30))),
    ['SegmentationClass/a.png', '40x30', '30x40', 'replace'],
  ),
  'label out of range': (
    lambda r: save(
      r / 'SegmentationClass/a.png', np.resize([0, 21, 90, 255], (30, 40))
    ),
    ['SegmentationClass/a.png', '[21, 90]', '0..20', '255', 'Check'],
  ),
  'colour label': (
    lambda r: save(r / 'SegmentationClass/a.png', np.zeros((30, 40, 3))),
    ['SegmentationClass/a.png', 'RGB', 'indices'],
  ),
  'truncated photo': (
    lambda r: cut(r / 'JPEGImages/a.jpg'),
    ['JPEGImages/a.jpg', 'truncated', 'Unpack'],
  ),
  'photo that is no image': (
    lambda r: (r / 'JPEGImages/a.jpg').write_text('<html>404</html>'),
    ['JPEGImages/a.jpg', 'cannot be decoded', 'Unpack'],
  ),
  'empty photo': (
    lambda r: (r / 'JPEGImages/a.jpg').write_bytes(b''),
    ['JPEGImages/a.jpg', '0 bytes', 'Unpack'],
  ),
  'truncated label': (
    lambda r: (r / 'SegmentationClass/a.png').write_bytes(
      (r / 'SegmentationClass/a.png').read_bytes()[:-30]
    ),
    ['SegmentationClass/a.png', 'cannot be decoded', 'Unpack'],
  ),
  'no photos': (
    lambda r: (r / 'JPEGImages').rename(r / 'Photos'),
    ['JPEGImages', 'VOCtrainval_11-May-2012.tar'],
  ),
  'trainaug without val list': (
    lambda r: (r / 'ImageSets/Segmentation/val.txt').unlink(),
    ['val.txt', 'trainaug'],
  ),
}


@pytest.mark.parametrize('fault', VOC_FAULTS)
def test_voc_fault_is_told(fault, voc, make_config, tmp_path):
  break_it, parts = VOC_FAULTS[fault]
  break_it(voc)
  config = make_config(
    'voc2012',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
  )
  with pytest.raises(UserError) as error:
    open_dataset(config)
  for part in parts:
    assert part in str(error.value)


CAMVID_FAULTS = {
  'image without label': (
    lambda r: (r / 'trainannot/train1.png').unlink(),
    ['trainannot/train1.png', 'has no label'],
  ),
  'label without image': (
    lambda r: (r / 'train/train1.png').unlink(),
    ['train/train1.png', 'has no photo'],
  ),
  'value 12': (
    lambda r: save(r / 'trainannot/train1.png', np.full((30, 40), 12)),
    ['trainannot/train1.png', '[12]', '0..10'],
  ),
}


@pytest.mark.parametrize('fault', CAMVID_FAULTS)
def test_camvid_fault_is_told(fault, camvid, make_config, tmp_path):
  break_it, parts = CAMVID_FAULTS[fault]
  break_it(camvid)
  config = make_config(
    'camvid',
    manual_dir=str(camvid),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
  )
  with pytest.raises(UserError) as error:
    open_dataset(config)
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize('name', ['camvid', 'voc2012'])
@pytest.mark.parametrize(
  ('folder', 'part'),
  [
    ('', 'manual_dir is empty'),
    ('missing', 'is no folder'),
    ('hollow', 'is empty'),
    ('strange', 'manual directory holds'),
  ],
)
def test_manual_dir_is_checked(name, folder, part, make_config, tmp_path):
  (tmp_path / 'hollow').mkdir()
  (tmp_path / 'strange' / 'holiday').mkdir(parents=True)
  manual_dir = str(tmp_path / folder) if folder else ''
  config = make_config(name, manual_dir=manual_dir, data_dir=str(tmp_path))
  with pytest.raises(UserError) as error:
    open_dataset(config)
  assert part in str(error.value)
  assert manual_dir in str(error.value)
  assert 'Get ' in str(error.value)


def test_fewer_images_than_published_before_and_after(
  camvid, make_config, tmp_path
):
  config = make_config(
    'camvid', manual_dir=str(camvid), data_dir=str(tmp_path / 'prepared')
  )
  message = r'train has 3 of 367; val has 2 of 101.*allow_partial=True'
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  assert not (tmp_path / 'prepared').exists()
  config.allow_partial = True
  open_dataset(config)
  config.allow_partial = False
  with pytest.raises(UserError, match=message):
    open_dataset(config)


def test_no_image_at_all(camvid, make_config, tmp_path):
  for path in camvid.rglob('*.*g'):
    path.unlink()
  config = make_config(
    'camvid',
    manual_dir=str(camvid),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
  )
  with pytest.raises(UserError, match='at least one'):
    open_dataset(config)


def test_an_absent_split_says_how_to_get_it(voc, make_config, tmp_path):
  config = make_config(
    'voc2012',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    train_split='trainval',
  )
  message = r"no split 'trainval'.*train, val, trainaug of.*VOCtrainval"
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  config.train_split = 'train'
  dataset = open_dataset(config)
  with pytest.raises(UserError, match=message):
    pipeline.evaluation_examples(dataset, 'trainval')
  config.eval_split = 'test'
  with pytest.raises(UserError, match="no split 'test'"):
    open_dataset(config)


def test_trainaug_without_its_labels_is_short(voc, make_config, tmp_path):
  """VOC's own training images are a part of trainaug, and no more."""
  (voc / 'SegmentationClassAug').rename(voc / 'elsewhere')
  config = make_config(
    'voc2012',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    train_split='trainaug',
  )
  message = r'trainaug has \d+ of 10582.*SegmentationClassAug'
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  config.allow_partial = True
  dataset = open_dataset(config)
  assert dataset.num_examples('trainaug') == dataset.num_examples('train')


@pytest.mark.parametrize(
  ('change', 'part'),
  [
    ({'crop_size': 0}, 'config.data.crop_size is 0'),
    ({'num_threads': 0}, 'config.data.num_threads is 0'),
    ({'prefetch': -1}, 'config.data.prefetch is -1'),
    ({'scales': ()}, 'config.data.scales'),
    ({'scales': (0.5, 0.0)}, 'config.data.scales'),
  ],
)
def test_impossible_values(change, part, shapes):
  dataset, config = shapes
  config.update(change)
  with pytest.raises(UserError, match=part):
    pipeline.train_iterator(dataset, config, batch_size=2, seed=0)


def test_batch_must_divide_among_processes(shapes):
  dataset, config = shapes
  with pytest.raises(UserError, match='multiple'):
    pipeline.train_iterator(
      dataset, config, batch_size=6, seed=0, process_count=4
    )
