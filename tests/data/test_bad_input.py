"""Every bad input is an error that names the file and the remedy.

And it leaves nothing that a later run would load.
"""

import dataclasses
import os
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data import pipeline
from emanet_jax.data.datasets import voc2012
from emanet_jax.errors import UserError
from tests.data.layouts import (
  pack,
  prepare,
  write_label,
  write_mat,
  write_photo,
)
from tests.tiny import open_dataset

PHOTO, LABEL = 'JPEGImages/a.jpg', 'SegmentationClass/a.png'
LISTS = 'ImageSets/Segmentation'


def save(path, array, dtype=np.uint8, **how):
  Image.fromarray(np.asarray(array, dtype)).save(path, **how)


def keep(path, share):
  """Cuts a file; a negative share takes that many bytes off its end."""
  content = path.read_bytes()
  end = share if share < 0 else int(share * len(content))
  path.write_bytes(content[:end])


def flip_byte(path, place):
  content = bytearray(path.read_bytes())
  content[place] ^= 0x55
  path.write_bytes(content)


def append(path, text):
  path.write_text(path.read_text() + text)


def link(path, target):
  path.unlink()
  path.symlink_to(target)


def replace_by_folder(path):
  path.unlink()
  path.mkdir()


def write_huge_png(path):
  """A PNG whose header promises far more pixels than memory."""

  def chunk(kind, data):
    body = kind + data
    return (
      struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))
    )

  header = struct.pack('>IIBBBBB', 90_000, 90_000, 8, 2, 0, 0, 0)
  path.write_bytes(
    b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IEND', b'')
  )


def turn(root):
  """A photo that its EXIF tag turns, and a label drawn on the turned one."""
  photo = Image.open(root / PHOTO)
  exif = photo.getexif()
  exif[0x0112] = 6
  photo.save(root / PHOTO, exif=exif)
  save(root / LABEL, np.zeros((40, 30)))


def save_transparent(path):
  pixels = np.full((30, 40, 4), 255)
  pixels[3, 4, 3] = 0
  save(path, pixels, format='PNG')


def misname(root):
  """A photo whose name is Latin-1."""
  folder = os.fsencode(root / 'train')
  os.rename(folder + b'/train1.png', folder + b'/caf\xe9.png')


def close_off(root):
  os.chmod(root / PHOTO, 0)


# On a sound VOC devkit: what is done to it, and what the message must say.
VOC = {
  'photo without label': (
    lambda r: (r / LABEL).unlink(),
    [LABEL, 'has no label', 'unpack'],
  ),
  'label without photo': (
    lambda r: (r / PHOTO).unlink(),
    [PHOTO, 'has no photo', 'unpack'],
  ),
  'id in the list without a file': (
    lambda r: append(r / LISTS / 'train.txt', 'zzz\n'),
    ["'zzz'", 'JPEGImages/zzz.jpg', 'does not exist'],
  ),
  'id listed twice': (
    lambda r: append(r / LISTS / 'train.txt', 'a\n'),
    ["'a'", PHOTO, 'listed twice', 'Remove'],
  ),
  'list that is no text': (
    lambda r: (r / LISTS / 'train.txt').write_bytes(b'\xff\xfe\x00a'),
    ['train.txt', 'no UTF-8', 'Save it as UTF-8'],
  ),
  'empty lists': (
    lambda r: [p.write_text('') for p in (r / LISTS).iterdir()],
    ['train.txt', 'absent or empty', 'Unpack'],
  ),
  'no lists': (
    lambda r: (
      shutil.rmtree(r / 'ImageSets'),
      shutil.rmtree(r / 'SegmentationClassAug'),
    ),
    ['no image of voc2012', 'Get VOCtrainval'],
  ),
  'no photos': (
    lambda r: (r / 'JPEGImages').rename(r / 'Photos'),
    ['JPEGImages', 'Get VOCtrainval_11-May-2012.tar'],
  ),
  'label turned by 90 degrees': (
    lambda r: save(r / LABEL, np.zeros((40, 30))),
    [LABEL, '40x30', '30x40', 'replace'],
  ),
  'label one row short': (
    lambda r: save(r / LABEL, np.zeros((29, 40))),
    [LABEL, '29x40', '30x40', 'replace'],
  ),
  'label one column wide': (
    lambda r: save(r / LABEL, np.zeros((30, 41))),
    [LABEL, '30x41', '30x40', 'replace'],
  ),
  'label outside the classes': (
    lambda r: write_label(r / LABEL, [0, 21, 90, 255]),
    [LABEL, '[21, 90]', '0..20', '255', 'Check'],
  ),
  'label in RGB': (
    lambda r: save(r / LABEL, np.zeros((30, 40, 3))),
    [LABEL, 'RGB', 'indices', 'as published'],
  ),
  'label with four channels': (
    lambda r: save(r / LABEL, np.zeros((30, 40, 4))),
    [LABEL, 'RGBA', 'indices', 'as published'],
  ),
  'label of grey and alpha': (
    lambda r: save(r / LABEL, np.zeros((30, 40, 2))),
    [LABEL, 'LA', 'indices', 'as published'],
  ),
  'label of 16 bits': (
    lambda r: save(r / LABEL, np.zeros((30, 40)), np.uint16),
    [LABEL, 'I;16', 'indices', 'as published'],
  ),
  'label of one bit': (
    lambda r: Image.new('1', (40, 30)).save(r / LABEL),
    [LABEL, 'of 1 pixels', 'indices', 'as published'],
  ),
  'label saved as JPEG': (
    lambda r: save(r / LABEL, np.zeros((30, 40)), format='JPEG'),
    [LABEL, 'JPEG', 'PNG', 'as published'],
  ),
  'photo cut at its end': (
    lambda r: keep(r / PHOTO, -200),
    [PHOTO, 'truncated', 'Restore'],
  ),
  'photo cut in half': (
    lambda r: keep(r / PHOTO, 0.5),
    [PHOTO, 'cannot be decoded', 'Restore'],
  ),
  'photo cut within its header': (
    lambda r: keep(r / PHOTO, 0.02),
    [PHOTO, 'cannot be decoded', 'Restore'],
  ),
  'photo of zero bytes': (
    lambda r: (r / PHOTO).write_bytes(b''),
    [PHOTO, '0 bytes', 'Restore'],
  ),
  'photo that is a web page': (
    lambda r: (r / PHOTO).write_text('<html>404</html>'),
    [PHOTO, 'cannot be decoded', 'Restore'],
  ),
  'photo that is a folder': (
    lambda r: replace_by_folder(r / PHOTO),
    [PHOTO, 'has no photo', 'Restore'],
  ),
  'photo of a kind OpenCV cannot read': (
    lambda r: save(r / PHOTO, np.zeros((30, 40, 3)), format='PCX'),
    [PHOTO, 'PCX', 'Save it as an ordinary JPEG'],
  ),
  'photo transparent in places': (
    lambda r: save_transparent(r / PHOTO),
    [PHOTO, 'transparent', 'without an alpha channel'],
  ),
  'photo of billions of pixels': (
    lambda r: write_huge_png(r / PHOTO),
    [PHOTO, 'cannot be decoded', 'Restore'],
  ),
  'photo that EXIF turns': (turn, [LABEL, PHOTO, 'EXIF', 'exiftran']),
  'label cut': (
    lambda r: keep(r / LABEL, -30),
    [LABEL, 'cannot be decoded', 'Restore'],
  ),
  'label of zero bytes': (
    lambda r: (r / LABEL).write_bytes(b''),
    [LABEL, '0 bytes', 'Restore'],
  ),
  'label with a flipped byte': (
    lambda r: flip_byte(r / LABEL, -25),
    [LABEL, 'cannot be decoded', 'Restore'],
  ),
  'photo linked to itself': (
    lambda r: link(r / PHOTO, r / PHOTO),
    [PHOTO, 'symbolic links', 'replace them'],
  ),
  'photos linked to themselves': (
    lambda r: (
      shutil.rmtree(r / 'JPEGImages'),
      (r / 'JPEGImages').symlink_to(r / 'JPEGImages'),
    ),
    ['JPEGImages', 'symbolic links', 'right to read the folder'],
  ),
  'label linked to nothing': (
    lambda r: link(r / LABEL, '/nowhere/a.png'),
    [LABEL, '/nowhere/a.png', 'Restore'],
  ),
  'a disk that fails': (
    lambda r: link(r / PHOTO, '/proc/self/mem'),
    [PHOTO, 'cannot be read', 'estore'],
  ),
  'photo without permission': (close_off, [PHOTO, 'denied', 'right']),
  'labels of trainaug, but no list to keep val out': (
    lambda r: (r / LISTS / 'val.txt').unlink(),
    ['val.txt', 'trainaug', 'Unpack'],
  ),
}

CAMVID = {
  'photo without label': (
    lambda r: (r / 'trainannot/train1.png').unlink(),
    ['trainannot/train1.png', 'has no label', 'Restore'],
  ),
  'label without photo': (
    lambda r: (r / 'train/train1.png').unlink(),
    ['train/train1.png', 'has no photo', 'Restore'],
  ),
  'void of another release': (
    lambda r: write_label(r / 'trainannot/train1.png', [12]),
    ['trainannot/train1.png', '[12]', '0..10', 'Check'],
  ),
  'two photos of one name': (
    lambda r: write_photo(r / 'train/train1.jpg'),
    ['train/train1.jpg', 'train/train1.png', 'twice', 'Remove or rename'],
  ),
  'name that is not UTF-8': (misname, ['caf', 'UTF-8', 'Rename']),
  'nothing of it': (
    lambda r: [p.rename(r / f'x{p.name}') for p in list(r.iterdir())],
    ['neither train, val nor test', 'Get the CamVid folder'],
  ),
}


MAT = 'dataset/cls/d.mat'
SBD = {
  'no such label': (
    lambda r: (r / MAT).unlink(),
    [MAT, 'has no label', 'Restore'],
  ),
  'label that is no MATLAB file': (
    lambda r: (r / MAT).write_bytes(b'no' * 300),
    [MAT, 'cannot be read', 'Restore'],
  ),
  'label cut': (
    lambda r: keep(r / MAT, 0.6),
    [MAT, 'cannot be read', 'Restore'],
  ),
  'label without its field': (
    lambda r: write_mat(r / MAT, other=np.zeros((33, 40))),
    [MAT, 'GTcls', 'Restore'],
  ),
  'label of another size': (
    lambda r: write_mat(
      r / MAT, GTcls={'Segmentation': np.zeros((33, 41), np.uint8)}
    ),
    [MAT, '33x41', '33x40', 'replace'],
  ),
  'label outside the classes': (
    lambda r: write_mat(
      r / MAT, GTcls={'Segmentation': np.full((33, 40), 77, np.uint8)}
    ),
    [MAT, '[77]', '0..20', 'Check'],
  ),
  'no list': (
    lambda r: (r / 'dataset/val.txt').unlink(),
    ['dataset/val.txt', 'does not exist'],
  ),
}


def repack(name, damage):
  """What is done to a devkit that is packed into an archive."""

  def break_it(root):
    outer = root.parents[1]
    archive = pack(outer, outer.parent / name)
    shutil.rmtree(outer)
    outer.mkdir()
    damage(archive.rename(outer / name))

  return break_it


def half(path):
  keep(path, 0.5)


ARCHIVES = {
  'tar cut in half': (
    repack('VOCtrainval_11-May-2012.tar', half),
    ['VOCtrainval_11-May-2012.tar', 'cannot be read', 'get it again'],
  ),
  'tar that is a web page': (
    repack(
      'VOCtrainval_11-May-2012.tar', lambda p: p.write_text('<html>' * 999)
    ),
    ['VOCtrainval_11-May-2012.tar', 'cannot be read', 'get it again'],
  ),
  'tgz cut in half': (
    repack('benchmark.tgz', half),
    ['benchmark.tgz', 'cannot be read', 'get it again'],
  ),
  'zip cut in half': (
    repack('SegmentationClassAug.zip', half),
    ['SegmentationClassAug.zip', 'cannot be read', 'get it again'],
  ),
}

CASES = {
  **{f'voc: {k}': ('voc2012', 'voc', *v) for k, v in VOC.items()},
  **{f'camvid: {k}': ('camvid', 'camvid', *v) for k, v in CAMVID.items()},
  **{f'sbd: {k}': ('voc2012', 'sbd', *v) for k, v in SBD.items()},
  **{f'archive: {k}': ('voc2012', 'voc', *v) for k, v in ARCHIVES.items()},
}


@pytest.fixture
def unprivileged(tmp_path):
  """Lets file permissions count, also where the tests run as root."""
  if os.geteuid():
    yield
    return
  for folder in (tmp_path, *tmp_path.parents[:3]):
    folder.chmod(0o777)
  os.seteuid(65534)
  yield
  os.seteuid(0)


@pytest.fixture
def published_sums_off(monkeypatch):
  sums = dict.fromkeys(voc2012.SPEC.checksums, '')
  spec = dataclasses.replace(voc2012.SPEC, checksums=sums)
  monkeypatch.setattr(voc2012.Builder, 'SPEC', spec)


@pytest.mark.usefixtures('published_sums_off')
@pytest.mark.parametrize('case', CASES)
def test_bad_input_is_told_and_leaves_nothing(case, request, tmp_path):
  name, layout, break_it, parts = CASES[case]
  root = request.getfixturevalue(layout)
  break_it(root)
  if 'permission' in case:
    request.getfixturevalue('unprivileged')
  with pytest.raises(UserError) as error:
    prepare(name, tmp_path / 'raw', tmp_path / 'prepared')
  for part in parts:
    assert part in str(error.value)
  assert os.listdir(tmp_path / 'prepared') == [f'.{name}.lock']


def test_there_are_at_least_forty_such_cases():
  assert len(CASES) >= 40


def test_odd_but_sound_input_is_taken(camvid, tmp_path):
  """Names, pixel formats and sizes that must not be refused."""
  for name, mode in (
    ('with space', 'RGB'),
    ('größe 漢字', 'RGB'),
    ('grey', 'L'),
    ('cmyk', 'CMYK'),
    ('v1.0', 'RGB'),
  ):
    write_photo(camvid / 'train' / f'{name}.jpg', 50, 20, mode=mode)
    write_label(camvid / 'trainannot' / f'{name}.png', [3], 50, 20)
  save(camvid / 'train/opaque.png', np.full((1, 9, 4), 255))
  write_label(camvid / 'trainannot/opaque.png', [4], 1, 9)
  dataset = prepare('camvid', camvid, tmp_path / 'prepared')
  found = {e['id']: e for e in pipeline.evaluation_examples(dataset, 'train')}
  assert {'with space', 'größe 漢字', 'v1.0', 'opaque'} < found.keys()
  for name in ('grey', 'cmyk'):
    want = np.asarray(
      Image.open(camvid / 'train' / f'{name}.jpg').convert('RGB')
    )
    difference = np.abs(found[name]['image'].astype(int) - want)
    assert difference.mean() < 1.5
    assert want.std() > 20


@pytest.mark.parametrize('name', ['camvid', 'voc2012'])
@pytest.mark.parametrize(
  ('folder', 'part'),
  [
    ('', 'manual_dir is empty'),
    ('missing', 'is no folder'),
    ('hollow', 'is empty'),
    ('strange', 'manual directory holds'),
    ('note.txt', 'neither a folder nor'),
  ],
)
def test_manual_dir_is_checked(name, folder, part, make_config, tmp_path):
  (tmp_path / 'hollow').mkdir()
  (tmp_path / 'strange' / 'holiday').mkdir(parents=True)
  (tmp_path / 'note.txt').write_text('photos are on the other disk')
  manual_dir = str(tmp_path / folder) if folder else ''
  config = make_config(name, manual_dir=manual_dir, data_dir=str(tmp_path))
  with pytest.raises(UserError) as error:
    open_dataset(config)
  assert part in str(error.value)
  assert manual_dir in str(error.value)
  if folder != 'note.txt':
    assert 'Get ' in str(error.value)


def test_data_dir_that_is_a_file(camvid, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file.*--data_dir'):
    prepare('camvid', camvid, tmp_path / 'file')


def test_a_published_archive_with_another_checksum(voc, tmp_path):
  pack(tmp_path / 'raw', tmp_path / 'packed/VOCtrainval_11-May-2012.tar')
  with pytest.raises(UserError) as error:
    prepare('voc2012', tmp_path / 'packed', tmp_path / 'prepared')
  assert '6cd6e144f989b92b3379bac3b3de84fd' in str(error.value)
  assert 'give the folder' in str(error.value)


def write_with(setup, camvid, data_dir):
  """Prepares CamVid in a process that first runs some code."""
  code = (
    f'{setup}\n'
    'from emanet_jax.data import preparation\n'
    'from emanet_jax.errors import UserError\n'
    'try:\n'
    f'  preparation.prepare("camvid", {str(camvid)!r}, {str(data_dir)!r},'
    ' allow_partial=True)\n'
    'except UserError as error:\n'
    '  print("told:", error)\n'
  )
  return subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )


@pytest.fixture
def big_camvid(camvid):
  """CamVid with more than a megabyte of photos."""
  rng = np.random.default_rng(0)
  for i in range(4):
    noise = rng.integers(0, 256, (360, 480, 3))
    save(camvid / f'train/noise{i}.png', noise)
    write_label(camvid / f'trainannot/noise{i}.png', [i], 360, 480)
  return camvid


def test_a_quota_reached_while_writing(big_camvid, tmp_path):
  setup = (
    'import resource, signal\n'
    'signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))'
  )
  result = write_with(setup, big_camvid, tmp_path / 'prepared')
  assert 'told: camvid could not be written' in result.stdout, result.stderr
  assert 'Make room' in result.stdout
  assert os.listdir(tmp_path / 'prepared') == ['.camvid.lock']
  dataset = prepare('camvid', big_camvid, tmp_path / 'prepared')
  assert dataset.counts['train'] == 7


def test_a_full_disk_while_writing(big_camvid, tmp_path):
  target = tmp_path / 'small disk'
  target.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(target)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('mounting a tmpfs needs root; the quota test covers the rest')
  try:
    result = write_with('', big_camvid, target)
    assert 'told: camvid could not be written' in result.stdout, result.stderr
    assert 'No space left' in result.stdout
    assert os.listdir(target) == ['.camvid.lock']
  finally:
    subprocess.run(['umount', str(target)], check=True)


def test_fewer_images_than_published_before_and_after(
  camvid, make_config, tmp_path
):
  config = make_config(
    'camvid', manual_dir=str(camvid), data_dir=str(tmp_path / 'prepared')
  )
  message = r'train has 3 of 367; val has 2 of 101.*allow_partial=True'
  with pytest.raises(UserError, match=message):
    open_dataset(config)
  assert os.listdir(tmp_path / 'prepared') == ['.camvid.lock']
  config.allow_partial = True
  open_dataset(config)
  config.allow_partial = False
  with pytest.raises(UserError, match=message):
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


def test_an_unlabelled_split_is_not_scored(voc, make_config, tmp_path):
  (voc / LISTS / 'test.txt').write_text('f\n')
  config = make_config(
    'voc2012_test',
    manual_dir=str(voc),
    data_dir=str(tmp_path / 'prepared'),
    allow_partial=True,
    eval_split='test',
    train_split='test',
  )
  with pytest.raises(UserError, match=r'test has no labels.*Choose another'):
    open_dataset(config)


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
