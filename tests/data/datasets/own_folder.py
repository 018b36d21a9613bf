"""Photos and masks in each layout that a user may have them in."""

import unicodedata

import numpy as np
from PIL import Image

from emanet_jax.data.reading.palette import voc_color
from tests.data.layouts import write_photo

SIZE = (30, 40)
PLAIN = 'background\ncar\nlamp\n'
COLORS = {0: (0, 0, 0), 1: (250, 120, 7), 2: (0, 0, 9), 255: (1, 1, 1)}
COLORED = 'background 0 0 0\ncar 250 120 7\nlamp 0 0 9\nvoid 1 1 1\n'
LABELMAP = (
  '# label:color_rgb:parts:actions\n'
  'background:0,0,0::\ncar:250,120,7::\nlamp:0,0,9::\nignored:1,1,1::\n'
)


def label(seed):
  """What the mask of a seed means."""
  rng = np.random.default_rng(seed)
  return rng.choice(np.array([0, 1, 2, 255], np.uint8), SIZE)


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def pair(root, photo, mask, seed, kind='index'):
  """Writes a photo and its mask; returns what must come of them."""
  write_photo(root / photo, *SIZE, seed=seed)
  values = label(seed)
  if kind == 'RGB':
    values = np.array([COLORS.get(v, (0, 0, 0)) for v in range(256)])[values]
  save(root / mask, values.astype(np.uint8))
  if kind == 'palette':
    image = Image.fromarray(values)
    image.putpalette([c for v in range(256) for c in voc_color(v)])
    image.save(root / mask)
  return (root / photo).read_bytes(), label(seed)


def same_names(root, names, **folders):
  """images/ and masks/, or folders like them."""
  images = folders.get('images', 'images')
  masks = folders.get('masks', 'masks')
  kind = folders.get('kind', 'index')
  return {
    name: pair(root, f'{images}/{name}.jpg', f'{masks}/{name}.png', seed, kind)
    for seed, name in enumerate(names)
  }


def pick(wanted, names):
  return {name: wanted[name] for name in names}


def flat(root):
  write(root / 'classes.txt', PLAIN)
  names = [f'{i:02}' for i in range(21)]
  wanted = same_names(root, names)
  val = ['00', '10', '20']
  train = [name for name in names if name not in val]
  return {'train': pick(wanted, train), 'val': pick(wanted, val)}


def lists(root, place='', entry='{}'):
  write(root / 'classes.txt', COLORED)
  wanted = same_names(root, ['b', 'a', 'c', 'd.e', 'unlisted'], kind='RGB')
  # A photo that no list names needs no mask.
  (root / 'masks/unlisted.png').unlink()
  splits = {'train': ['b', 'a'], 'val': ['d.e'], 'test': ['c']}
  for split, names in splits.items():
    lines = ''.join(f'{entry.format(name)}\n' for name in names)
    write(root / place / f'{split}.txt', lines)
  return {split: pick(wanted, names) for split, names in splits.items()}


def split_folders(root):
  write(root / 'classes.txt', PLAIN)
  wanted = {}
  for number, split in enumerate(('train', 'val', 'test')):
    wanted[split] = {
      name: pair(
        root,
        f'images/{split}/{name}.png',
        f'masks/{split}/{name}.png',
        10 * number + seed,
      )
      for seed, name in enumerate(['a', 'b', 'street/a'][: 3 - number])
    }
  return wanted


def other_split_names(root):
  wanted = split_folders(root)
  for folder in ('images', 'masks'):
    (root / folder / 'val').rename(root / folder / 'Validation')
  return wanted


def table(root, name, line, head=''):
  """train and val as tables of paths anywhere."""
  write(root / 'classes.txt', PLAIN)
  wanted = {}
  for seed, split in enumerate(('val', 'train')):
    made = pair(root, f'day {seed}/x.jpg', f'out/m {seed}.png', seed)
    lines = head + line.format(f'day {seed}/x.jpg', f'out/m {seed}.png')
    write(root / name.format(split), lines)
    wanted[split] = {f'day {seed}/x': made}
  return wanted


def table_of_words(root):
  write(root / 'classes.txt', PLAIN)
  train = pair(root, 'p/x.jpg', 'q/y.png', 1)
  val = pair(root, 'p/z.jpg', 'q/z.png', 2)
  write(root / 'train.txt', 'Photo Mask\n\np/x.jpg   q/y.png\n')
  write(root / 'val.txt', '/p/z.jpg ./q/z.png')
  return {'train': {'p/x': train}, 'val': {'p/z': val}}


def labelme(root, masks='SegmentationClass'):
  write(root / 'class_names.txt', '_background_\ncar\nlamp')
  (root / 'SegmentationClass').mkdir(parents=True)
  for name in 'ab':
    np.save(root / 'SegmentationClass' / f'{name}.npy', label(0))
  wanted = same_names(
    root, 'ab', images='JPEGImages', masks=masks, kind='palette'
  )
  write_photo(root / 'SegmentationClassVisualization' / 'a.jpg')
  return {'train': pick(wanted, 'b'), 'val': pick(wanted, 'a')}


def cvat(root, names=None):
  write(root / 'labelmap.txt', LABELMAP)
  folders = {'images': 'JPEGImages', 'masks': 'SegmentationClass'}
  wanted = same_names(root, 'dcba', **folders, kind='RGB')
  same_names(root, 'dcba', **{**folders, 'masks': 'SegmentationObject'})
  for split, listed in (names or {'default': 'dca'}).items():
    lines = ''.join(f'{name}\n' for name in listed)
    write(root / f'ImageSets/Segmentation/{split}.txt', lines)
  if names:
    return {'train': pick(wanted, 'cd'), 'val': pick(wanted, 'b')}
  return {'train': pick(wanted, 'cd'), 'val': pick(wanted, 'a')}


def strange_names(root):
  """Blanks, letters of any language (spelt in two ways) and dots."""
  write(root / 'classes.txt', PLAIN)
  wanted = {}
  names = ['Straße 1', 'a.b.c', 'ä', '木', 'x.png', 'x.png 2']
  for seed, name in enumerate(names):
    other = unicodedata.normalize('NFD', name)
    wanted[name] = pair(root, f'images/{other}.JPG', f'masks/{name}.PNG', seed)
  write(root / 'train.txt', 'Straße 1\nä\na.b.c\n木.JPG\n')
  write(root / 'val.txt', 'x.png.JPG\nx.png 2\n')
  return {
    'train': pick(wanted, ['Straße 1', 'ä', 'a.b.c', '木']),
    'val': pick(wanted, ['x.png', 'x.png 2']),
  }


def formats(root):
  write(root / 'classes.txt', PLAIN)
  wanted = {
    suffix: pair(root, f'images/{suffix}.{suffix}', f'masks/{suffix}.{mask}', i)
    for i, (suffix, mask) in enumerate(
      [
        *(('BMP', 'png'), ('jpeg', 'bmp'), ('jpg', 'tif'), ('png', 'TIFF')),
        *(('tif', 'png'), ('tiff', 'png'), ('webp', 'png')),
      ]
    )
  }
  names = list(wanted)
  return {'train': pick(wanted, names[1:]), 'val': pick(wanted, names[:1])}


LAYOUTS = {
  'flat': flat,
  'lists': lists,
  'lists in splits/': lambda r: lists(r, 'splits'),
  'lists of file names': lambda r: lists(r, entry='{}.jpg'),
  'lists of paths': lambda r: lists(r, entry='./images/{}.jpg'),
  'split folders': split_folders,
  'split folders of other names': other_split_names,
  'csv': lambda r: table(r, '{}.csv', '{},{}\n'),
  'csv with a header': lambda r: table(r, '{}.csv', '{},{}\n', 'image,mask\n'),
  'csv with quotes': lambda r: table(r, '{}.csv', '"{}","{}"'),
  'csv with semicolons': lambda r: table(
    r, '{}.CSV', '{};{}\n', 'Photo;Mask\n'
  ),
  'tsv': lambda r: table(r, '{}.tsv', '{}\t{}\n'),
  'txt with tabs': lambda r: table(r, '{}.txt', '{}\t{}\n', 'image\tlabel\n'),
  'txt of Windows': lambda r: table(r, 'splits/{}.txt', '{}\t.\\{}\r\n'),
  'txt with blanks': table_of_words,
  'labelme': labelme,
  'old labelme': lambda r: labelme(r, 'SegmentationClassPNG'),
  'CVAT': cvat,
  'CVAT with subsets': lambda r: cvat(
    r, {'Train': 'cd', 'Validation': 'b', 'default': 'a'}
  ),
  'strange names': strange_names,
  'formats': formats,
}
