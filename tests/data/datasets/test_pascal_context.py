"""PASCAL Context: masks painted in order, merged ids, 59 classes and 60."""

import json
import shutil

import numpy as np
import pytest

from emanet_jax.data import datasets
from emanet_jax.data.datasets import pascal_context
from tests.data.datasets import miniature
from tests.data.layouts import prepare, write_photo
from tests.data.run_lengths import encode_rle, run_lengths

PHOTOS = 'VOCdevkit/VOC2010/JPEGImages'
FIRST = f'{PHOTOS}/2008_000002.jpg'
TAR = 'VOCtrainval_03-May-2010.tar'
JSON = 'trainval_merged.json'
SIZE = (30, 40)

# The order in which the Detail API lists its 59 categories, and the publisher's
# 59_labels.txt, which is in the same order.
IDS = """
  2 23 25 31 34 45 59 65 72 98 397 113 207 258 284 308 347 368 416 427 9 18 22
  33 44 46 68 80 85 104 115 144 158 159 162 187 189 220 232 259 260 105 296 355
  295 324 326 349 354 360 366 19 415 420 424 440 445 454 458
"""
LABELS = """
  aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse
  motorbike person pottedplant sheep sofa train tvmonitor bag bed bench book
  building cabinet ceiling cloth computer cup door fence floor flower food grass
  ground keyboard light mountain mouse curtain platform sign plate road rock
  shelves sidewalk sky snow bedclothes track tree truck wall water window wood
"""
IMAGES = {
  2008_000002: 'val',
  2008_000003: 'train',
  2007_000027: 'train',
  2008_000004: 'test',
}


def shapes(image):
  """What an image is annotated with: (category id, mask), back to front."""
  ids = list(pascal_context.NAMES)[1:]
  rows, columns = np.indices(SIZE)
  full = np.ones(SIZE, bool)
  cells = [(columns // 8 == i % 5) & (rows // 5 == i // 5) for i in range(30)]
  return {
    2008_000002: [(ids[i], cells[i]) for i in range(30)],
    2008_000003: [(ids[29 + i], cells[i]) for i in range(30)],
    # One covers another, and a part of all belongs to no class.
    2007_000027: [
      (427, full & (rows < 20)),
      (284, (rows - 10) ** 2 + (columns - 20) ** 2 < 80),
      (0, (rows > 8) & (rows < 12)),
    ],
    2008_000004: [(2, full)],
  }[image]


def merged():
  """The annotations as the published file has them, other parts included."""
  mask = encode_rle(shapes(2008_000004)[0][1])
  segments = [
    {
      'id': 100 * i + j,
      'image_id': image,
      'category_id': category,
      'segmentation': encode_rle(pixels),
      'area': int(pixels.sum()),
      'iscrowd': 0,
      'bbox': [0, 0, 1, 1],
      'parts': [{'part_id': 255, 'segmentation': mask}],
    }
    for i, image in enumerate(IMAGES)
    for j, (category, pixels) in enumerate(shapes(image))
  ]
  edges = {'indices': [[1, 2]], 'edgelabel': [1]}
  return {
    'categories': [{'category_id': 2, 'name': 'aeroplane', 'parts': [1]}],
    'annos_occlusion': [{'image_id': i, 'edges': edges} for i in IMAGES],
    'annos_boundary': [{'image_id': i, 'boundary_mask': mask} for i in IMAGES],
    'images': [
      {
        'image_id': image,
        'file_name': f'{name(image)}.jpg',
        'phase': phase,
        'height': SIZE[0],
        'width': SIZE[1],
      }
      for image, phase in IMAGES.items()
    ],
    # The order of the file is that of the painting, not of the images.
    'annos_segmentation': sorted(segments, key=lambda s: s['id'] % 100),
  }


def name(image):
  return f'{str(image)[:4]}_{str(image)[4:]}'


def wanted(root, image, background):
  """Photo and label: the class is the id's place among all 59 kept ids."""
  kept = sorted(int(i) for i in IDS.split())
  label = np.full(SIZE, background, np.uint8)
  for category, pixels in shapes(image):
    value = kept.index(category) + (not background) if category else background
    label[pixels] = value
  return (root / PHOTOS / f'{name(image)}.jpg').read_bytes(), label


@pytest.fixture
def root(tmp_path, monkeypatch):
  root = tmp_path / 'raw'
  for seed, image in enumerate(IMAGES):
    write_photo(root / PHOTOS / f'{name(image)}.jpg', *SIZE, seed=seed)
  content = merged()
  # The first mask is not compressed.
  first = content['annos_segmentation'][0]
  runs = run_lengths(shapes(first['image_id'])[0][1])
  first['segmentation']['counts'] = runs
  (root / JSON).write_text(json.dumps(content))
  for dataset in ('pascal_context', 'pascal_context60'):
    miniature.forget_checksums(monkeypatch, dataset)
  return root


def pack(root):
  miniature.pack_away(root, {TAR: {'VOCdevkit': 'VOCdevkit'}})
  return root


def move_annotations(root):
  shutil.move(root / JSON, root / 'VOCdevkit/VOC2010')
  return root / 'VOCdevkit/VOC2010'


LAYOUTS = {
  'unpacked': lambda root: root,
  'archive': pack,
  'annotations inside': move_annotations,
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(
  ('dataset', 'background'), [('pascal_context', 255), ('pascal_context60', 0)]
)
def test_every_pixel(dataset, background, layout, root, tmp_path):
  want = {
    split: {
      name(image): wanted(root, image, background)
      for image, phase in IMAGES.items()
      if phase == split
    }
    for split in ('train', 'val')
  }
  prepared = prepare(dataset, LAYOUTS[layout](root), tmp_path / 'prepared')
  assert prepared.counts == {'train': 2, 'val': 1}
  for split in want:
    miniature.compare(prepared, split, want[split])
  seen = np.unique([label for s in want.values() for _, label in s.values()])
  assert seen.size == 60  # All classes, and the background.


def test_names_go_with_their_ids():
  ids = [int(i) for i in IDS.split()]
  by_id = [n for _, n in sorted(zip(ids, LABELS.split(), strict=True))]
  assert list(datasets.get_dataset('pascal_context').SPEC.classes) == by_id
  assert by_id == sorted(by_id)  # As are the 459 that the ids number.
  with_background = datasets.get_dataset('pascal_context60').SPEC.classes
  assert with_background == ('background', *by_id)


def first_segment(**fields):
  def write(root):
    content = merged()
    content['annos_segmentation'][0].update(fields)
    (root / JSON).write_text(json.dumps(content))

  return write


FAULTS = {
  'no annotations': (
    lambda r: (r / JSON).unlink(),
    ['holds no trainval_merged.json', 'sha1 169325d9'],
  ),
  'no photos': (
    lambda r: shutil.rmtree(r / 'VOCdevkit'),
    ['holds no VOCdevkit/VOC2010/JPEGImages', TAR],
  ),
  'a photo is missing': (
    lambda r: (r / FIRST).unlink(),
    ["'2008_000002' has no photo", 'JPEGImages/2008_000002.jpg'],
  ),
  'a broken link': (
    lambda r: (r / FIRST).unlink() or (r / FIRST).symlink_to('nowhere'),
    ['2008_000002.jpg is a link to nowhere'],
  ),
  'cut short': (
    lambda r: (r / JSON).write_text(json.dumps(merged())[:-100]),
    [JSON, 'no annotation of the Detail API', 'Get VOCtrainval'],
  ),
  'other JSON': (
    lambda r: (r / JSON).write_text('{"annotations": []}'),
    [JSON, "KeyError('annos_segmentation')"],
  ),
  'not merged': (
    first_segment(category_id=3),
    [JSON, 'image 2008_000002', 'category [3]', 'merged'],
  ),
  'a damaged mask': (
    first_segment(segmentation={'counts': '09', 'size': [3, 3]}),
    [JSON, 'mask of 2008_000002', 'do not make 30x40', 'again'],
  ),
  'masks of a strange kind': (
    first_segment(segmentation={'counts': [5, 'x']}),
    [JSON, 'mask of 2008_000002', 'do not make 30x40', 'again'],
  ),
  'another size': (
    lambda r: write_photo(r / FIRST, 40, 30),
    ['image 2008_000002', '30x40', '40x30'],
  ),
}


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('dataset', ['pascal_context', 'pascal_context60'])
def test_a_fault_is_told(dataset, fault, root, tmp_path):
  spoil, messages = FAULTS[fault]
  spoil(root)
  miniature.refuse(dataset, root, tmp_path, *messages)


@pytest.mark.parametrize(
  'file', [TAR, JSON, f'VOCdevkit/VOC2010/{JSON}', f'VOC2010/{JSON}']
)
@pytest.mark.parametrize('dataset', ['pascal_context', 'pascal_context60'])
def test_other_files_of_these_names_are_refused(dataset, file, tmp_path):
  path = tmp_path / 'raw' / file
  path.parent.mkdir(parents=True)
  path.write_bytes(b'another')
  miniature.refuse(
    dataset, tmp_path / 'raw', tmp_path, file, 'not the published'
  )
