"""What test servers are given, read back from the archive."""

import contextlib
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data import datasets
from emanet_jax.errors import UserError
from emanet_jax.prediction import submission

# A name's path in the archive, as the server looks for it.
PATHS = {
  'voc2012': (
    '2008_000006',
    'results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png',
  ),
  'cityscapes': (
    'berlin_000000_000019',
    'berlin_000000_000019_labelIds.png',
  ),
  'ade20k': ('ADE_test_00000001', 'ADE_test_00000001.png'),
}


def read(content):
  image = Image.open(io.BytesIO(content))
  image.load()
  return image


@contextlib.contextmanager
def opened(archive):
  """Content by name, of an archive that is sound."""
  if archive.suffix == '.zip':
    with zipfile.ZipFile(archive) as packed:
      assert packed.testzip() is None
      yield {name: packed.read(name) for name in packed.namelist()}
    return
  with tarfile.open(archive, 'r:gz') as packed:
    yield {m.name: packed.extractfile(m).read() for m in packed if m.isfile()}


@pytest.mark.parametrize('name', PATHS)
def test_an_archive_read_back(tmp_path, name):
  spec = datasets.get_dataset(name).SPEC
  form = submission.get_format(name, spec.num_classes)
  rng = np.random.default_rng(0)
  ids = [PATHS[name][0], 'zebra', 'apple']
  labels = [
    rng.integers(0, spec.num_classes, (40 + i, 50), np.uint8)
    for i in range(len(ids))
  ]
  for one, label in zip(ids, labels, strict=True):
    path = tmp_path / 'made' / form.path.replace('{}', one)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(form.encode(label, spec))
  (tmp_path / 'made' / 'of_another_run.png').write_bytes(b'')
  archive = tmp_path / f'a{form.suffix}'
  submission.pack(archive, tmp_path / 'made', form, ids)
  # Rejected by VOC's server: .zip and .tar.
  assert form.suffix == ('.tgz' if name == 'voc2012' else '.zip')
  with opened(archive) as contents:
    assert len(contents) == len(ids)
    assert PATHS[name][1] in contents
    for one, label in zip(ids, labels, strict=True):
      image = read(contents[form.path.replace('{}', one)])
      values = np.asarray(image)
      assert values.shape == label.shape
      assert image.mode == ('P' if name == 'voc2012' else 'L')
      table = dict(
        zip(label.ravel().tolist(), values.ravel().tolist(), strict=True)
      )
      np.testing.assert_array_equal(values, np.vectorize(table.get)(label))
      if name == 'voc2012':
        assert table == {c: c for c in range(21)}
        palette = np.array(image.getpalette()).reshape(-1, 3)
        assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
      elif name == 'cityscapes':
        # road, sky, train and bicycle in labels.py of cityscapesScripts.
        assert [table[c] for c in (0, 10, 16, 18)] == [7, 23, 31, 33]
      else:
        assert table == {c: c + 1 for c in range(150)}
  # The same predictions give the same bytes, whenever and in whatever order.
  first = archive.read_bytes()
  for path in (tmp_path / 'made').rglob('*.png'):
    os.utime(path, (1e9, 1e9))
  submission.pack(archive, tmp_path / 'made', form, ids[::-1])
  assert archive.read_bytes() == first
  assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name, 'made']


def test_missing_predictions_are_named(tmp_path):
  form = submission.FORMATS['ade20k']
  (tmp_path / 'b.png').write_bytes(b'')
  names = [*'abcdefgh']
  with pytest.raises(UserError, match=r'7 of 8 .*\(a, c, d, e, f, …\)'):
    submission.pack(tmp_path / 'a.zip', tmp_path, form, names)
  assert [p.name for p in tmp_path.iterdir()] == ['b.png']


def test_other_data_sets_are_refused():
  with pytest.raises(UserError, match="'camvid'; known are voc2012, citysc"):
    submission.get_format('camvid', 11)
  with pytest.raises(
    UserError, match=r'takes 21 classes, but .* has 7; choose'
  ):
    submission.get_format('voc2012', 7)


def test_values_are_as_many_as_classes():
  for name, form in submission.FORMATS.items():
    spec = datasets.get_dataset(name).SPEC
    assert len(form.values) == spec.num_classes == len(set(form.values))
