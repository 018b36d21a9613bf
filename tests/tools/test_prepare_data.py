"""The command that prepares, checks and previews data sets."""

import inspect
import io
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from emanet_jax.config import default_config
from emanet_jax.data.preparation import inspection
from emanet_jax.data.prepared import load_dataset
from emanet_jax.visualization import previews
from emanet_jax.visualization.previews import preview_page
from tests import pictures
from tests.data.layouts import prepare, write_label, write_photo


@pytest.fixture
def run(commands):
  def run(*arguments):
    result = commands.run('emanet_jax.tools.prepare_data', *arguments)
    return result.returncode, result.stdout + result.stderr

  return run


@pytest.fixture
def raw(tmp_path):
  """CamVid with three training and two validation images, each of a colour."""
  root = tmp_path / 'raw' / 'CamVid'
  for split, count in (('train', 3), ('val', 2)):
    for i in range(count):
      write_photo(root / split / f'{split}{i}.jpg', 60, 80, seed=i)
      write_label(root / f'{split}annot/{split}{i}.png', [i], 60, 80)
  return root


def test_prepare_then_check_then_preview(raw, tmp_path, run):
  data_dir = f'--data_dir={tmp_path / "out"}'
  code, output = run('camvid', f'--manual_dir={raw}', data_dir)
  assert code == 1
  assert 'error: ' in output
  assert '--allow_partial' in output
  assert 'Traceback' not in output

  partial = ('camvid', data_dir, '--allow_partial')
  code, output = run(*partial, f'--manual_dir={raw}')
  assert code == 0, output
  assert 'train: 3 images' in output
  assert 'sky 33.33 %' in output
  assert 'tensorflow' not in output.lower()

  code, output = run('camvid', data_dir, '--check')
  assert code == 1
  assert 'train: 3 examples, published are 367' in output
  assert 'is sound, but not as published' in output
  assert '--allow_partial' in output
  code, output = run(*partial, '--check', '--sample=2', '--preview')
  assert code == 0, output
  assert 'train: 2 of 3 examples looked at, 0 problem(s)' in output
  assert 'is sound' in output
  for split in ('train', 'val'):
    page = tmp_path / 'out' / 'camvid' / f'preview_{split}.png'
    assert Image.open(page).width > 1000


def test_what_is_wrong_with_the_command(tmp_path, run):
  data_dir = f'--data_dir={tmp_path}'
  for arguments, part in (
    (('nothing', data_dir), 'must be one of ade20k, camvid'),
    (('camvid', data_dir), 'manual_dir is empty'),
    (('camvid', data_dir, '--check'), 'prepare the data set first'),
    (('camvid', data_dir, '--check', '--manual_dir=x'), 'leave --manual_dir'),
    (('camvid', data_dir, '--preview', '--manual_dir=x'), 'leave --manual_dir'),
  ):
    code, output = run(*arguments)
    assert code == 1
    assert 'error: ' in output
    assert part in output
    assert 'Traceback' not in output
  code, output = run(data_dir)
  assert code == 1
  assert 'give one data set' in output


def test_skip_bad_lists_what_was_left_out(raw, tmp_path, run):
  for name in ('train/train1', 'val/val1'):
    (raw / f'{name}.jpg').write_bytes(b'')
  out = ('camvid', f'--manual_dir={raw}', f'--data_dir={tmp_path / "out"}')
  code, output = run(*out, '--allow_partial', '--skip_bad')
  assert code == 1  # 2 of 5 are more than the usual 1 %, and than one
  assert 'max_bad_share' in output
  code, output = run(
    *out, '--allow_partial', '--skip_bad', '--max_bad_share=0.4'
  )
  assert code == 0, output
  assert '2 bad examples left out' in output
  assert 'train1.jpg is empty' in output


def rewrite(dataset, split, change):
  """Writes a split's records anew, changed, behind TFDS's back."""
  features = tfds.builder_from_directory(dataset.directory).info.features
  records = [dict(record) for record in dataset.source(split)]
  for index, record in enumerate(records):
    change(index, record)
  (path,) = dataset.directory.glob(f'*-{split}.array_record*')
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  for record in records:
    writer.write(features.serialize_example(features.encode_example(record)))
  writer.close()


def png(array):
  stream = io.BytesIO()
  Image.fromarray(np.uint8(array)).save(stream, 'PNG')
  return stream.getvalue()


CHANGES = {
  'label out of range': (
    lambda r: r.update(label=png(np.full((60, 80), 11))),
    r'train\[1\].*\[11\].*0\.\.10',
  ),
  'label of another size': (
    lambda r: r.update(label=png(np.zeros((60, 79)))),
    r'train\[1\].*60x79.*60x80',
  ),
  'photo cut': (
    lambda r: r.update(image=r['image'][:300]),
    r'train\[1\].*cannot be decoded',
  ),
  'label that is no image': (
    lambda r: r.update(label=b'none'),
    r'train\[1\].*cannot be decoded',
  ),
  'id twice': (lambda r: r.update(id=b'train0'), "id 'train0' occurs twice"),
}


@pytest.mark.parametrize('fault', CHANGES)
def test_check_finds_a_bad_record(fault, raw, tmp_path):
  change, message = CHANGES[fault]
  dataset = prepare('camvid', raw, tmp_path / 'out')
  assert inspection.inspect(dataset) == []
  rewrite(dataset, 'train', lambda i, r: change(r) if i == 1 else None)
  (problem,) = inspection.inspect(load_dataset(dataset.directory))
  assert re.search(message, problem)


def test_check_finds_a_flipped_byte(raw, tmp_path):
  dataset = prepare('camvid', raw, tmp_path / 'out')
  (path,) = dataset.directory.glob('*-train.array_record*')
  content = bytearray(path.read_bytes())
  place = content.find(b'train1')
  content[place + 500] ^= 1
  path.write_bytes(content)
  problems = inspection.inspect(load_dataset(dataset.directory))
  assert any(str(dataset.directory) in problem for problem in problems)


def test_check_counts(raw, tmp_path):
  dataset = prepare('camvid', raw, tmp_path / 'out')
  assert inspection.inspect_counts(dataset) == [
    'train: 3 examples, published are 367',
    'val: 2 examples, published are 101',
  ]


def test_preview_shows_photo_and_label_colours(raw, tmp_path):
  for i in range(3):  # White photos: what is coloured is the label.
    Image.new('RGB', (80, 60), 'white').save(raw / f'train/train{i}.jpg')
  dataset = prepare('camvid', raw, tmp_path / 'out')
  preview_page(tmp_path / 'page.png', dataset, 'train', crop_size=97)
  page = pictures.read(tmp_path / 'page.png')
  for color in dataset.spec.palette[:3]:
    mixed = np.rint(0.6 * 255 + 0.4 * np.array(color)).astype(np.uint8)
    # Once in the photo, twice in crops, and under other augmentations.
    assert pictures.where(page, mixed).sum() > 3000
  unseen = np.rint(0.6 * 255 + 0.4 * np.array(dataset.spec.palette[8]))
  assert not pictures.where(page, unseen).any()
  # Rows are examples: they are as many as there are, though six were wanted.
  assert page.shape[0] < page.shape[1]


def test_preview_shows_what_is_ignored(raw, tmp_path, monkeypatch):
  """Striped in greys that stand out from black, white and what is between."""
  for i, level in enumerate((0, 128, 255)):
    Image.new('RGB', (80, 60), (level,) * 3).save(raw / f'train/train{i}.jpg')
    write_label(raw / f'trainannot/train{i}.png', [11], 60, 80)
  legends = []
  original = previews.page
  monkeypatch.setattr(
    previews, 'page', lambda *a: legends.append(a[-1]) or original(*a)
  )
  dataset = prepare('camvid', raw, tmp_path / 'out')
  preview_page(tmp_path / 'page.png', dataset, 'train', crop_size=60)
  page = pictures.read(tmp_path / 'page.png')
  for level in (0, 128, 255):
    for stripe in (60, 230):
      mixed = np.full(3, np.rint(level / 2 + stripe / 2), np.uint8)
      assert pictures.where(page, mixed).sum() > 1000
  ((name, _),) = legends[0]
  assert name == 'ignored (stripes)'


def test_preview_says_that_dark_classes_darken(tmp_path, monkeypatch):
  names = []
  original = previews.page
  monkeypatch.setattr(
    previews,
    'page',
    lambda *a: names.extend(n for n, _ in a[-1]) or original(*a),
  )
  root = tmp_path / 'own'
  (root / 'images').mkdir(parents=True)
  (root / 'classes.txt').write_text('ground\nroad\ncar\n')
  for name in 'ab':
    write_photo(root / f'images/{name}.jpg')
    write_label(root / f'masks/{name}.png', [0, 1])
  dataset = prepare('folder', root, tmp_path / 'out')
  preview_page(tmp_path / 'page.png', dataset, 'train', crop_size=33)
  assert names == ['ground (darkens)', 'road', 'ignored (stripes)']


def test_preview_draws_the_crops_of_the_recipe():
  recipe = default_config().data
  parameters = inspect.signature(preview_page).parameters
  assert parameters['crop_size'].default == recipe.crop_size
  assert recipe.scales == previews._SCALES
