"""Damages to data sets, and what the error of each has to say."""

import os
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from tests.data.layouts import (
  pack,
  write_label,
  write_mat,
  write_photo,
)

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
