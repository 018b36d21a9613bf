"""One tree over folders and archives."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile

import pytest

from emanet_jax.data.reading.archives import verify
from emanet_jax.data.reading.files import Files
from emanet_jax.errors import UserError
from tests.data.layouts import pack

CONTENT = {
  'VOC/JPEGImages/b.jpg': b'bbb',
  'VOC/JPEGImages/a.JPG': b'a' * 70_000,
  'VOC/lists/train.txt': 'ä b\n'.encode(),
  'VOC/empty.txt': b'',
  'top.csv': b'x',
}


@pytest.fixture
def tree(tmp_path):
  root = tmp_path / 'tree'
  for path, content in CONTENT.items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
  (root / 'VOC' / 'JPEGImages' / '._b.jpg').write_bytes(b'from a Mac')
  (root / 'VOC' / '.ipynb_checkpoints').mkdir()
  (root / 'VOC' / '.ipynb_checkpoints' / 'b.jpg').write_bytes(b'old')
  return root


@pytest.fixture(params=['folder', '.tar', '.tgz', '.zip'])
def files(request, tree, tmp_path):
  """The same files unpacked and in archives."""
  if request.param == 'folder':
    return Files(tree, {}, tmp_path)
  archive = pack(tree, tmp_path / 'packed' / f'all{request.param}')
  shutil.rmtree(tree)
  return Files(archive.parent, {archive.name: ''}, tmp_path)


def test_content_size_and_place(files):
  for path, content in CONTENT.items():
    file = files.get(path)
    assert file.size == len(content)
    assert path in file.where
    assert str(files.root) in file.where
    if content:
      assert file.read() == content


def test_walk_is_sorted_and_leaves_hidden_files_out(files):
  paths = [file.path for file in files.walk('VOC')]
  assert paths == sorted(path for path in CONTENT if path.startswith('VOC'))
  jpegs = [file.path for file in files.walk('', ('.jpg', '.png'))]
  assert jpegs == ['VOC/JPEGImages/a.JPG', 'VOC/JPEGImages/b.jpg']
  assert not list(files.walk('VO'))
  assert not list(files.walk('nowhere'))


def test_paths_may_hold_dots(files):
  assert files.get('./VOC/../VOC/JPEGImages/b.jpg').read() == b'bbb'
  assert files.first('X', './VOC/JPEGImages', 'VOC') == './VOC/JPEGImages'
  assert files.first('X', 'Y') is None
  assert files.holds('.')


def test_what_is_absent_or_empty_or_no_text(files):
  assert files.get('VOC/none.txt').size is None
  assert files.get('VOC').size is None
  with pytest.raises(UserError, match=r'none\.txt does not exist'):
    files.get('VOC/none.txt').read()
  with pytest.raises(UserError, match=r'empty\.txt is empty \(0 bytes\)'):
    files.get('VOC/empty.txt').read()
  assert files.get('VOC/lists/train.txt').text() == 'ä b\n'


def test_text_must_be_utf8(tmp_path):
  (tmp_path / 'list.txt').write_bytes('ä'.encode('latin-1'))
  (tmp_path / 'bom.txt').write_bytes(b'\xef\xbb\xbfname')
  files = Files(tmp_path, {}, tmp_path)
  with pytest.raises(UserError, match=r'list\.txt is no UTF-8 text'):
    files.get('list.txt').text()
  assert files.get('bom.txt').text() == 'name'


def test_a_single_archive_may_be_given(tree, tmp_path):
  archive = pack(tree, tmp_path / 'mine.zip')
  assert Files(archive, {}, tmp_path).get('top.csv').read() == b'x'


def test_the_folder_comes_before_an_archive_and_both_are_walked(tree, tmp_path):
  pack(tree, tmp_path / 'packed' / 'all.tar')
  (tmp_path / 'packed' / 'top.csv').write_bytes(b'newer')
  (tmp_path / 'packed' / 'own.csv').write_bytes(b'own')
  files = Files(tmp_path / 'packed', {'all.tar': '', 'more.tar': ''}, tmp_path)
  assert files.get('top.csv').read() == b'newer'
  found = {f.path: f.read() for f in files.walk('', ('.csv',))}
  assert found == {'top.csv': b'newer', 'own.csv': b'own'}


def test_an_archive_that_nobody_named_stays_closed(tree, tmp_path):
  pack(tree, tmp_path / 'packed' / 'other.tar')
  files = Files(tmp_path / 'packed', {'all.tar': ''}, tmp_path)
  assert files.get('top.csv').size is None


def test_the_unzipped_copy_has_no_name(tree, tmp_path):
  archive = pack(tree, tmp_path / 'packed' / 'all.tgz')
  scratch = tmp_path / 'scratch'
  scratch.mkdir()
  files = Files(archive, {}, scratch)
  assert not list(scratch.iterdir())
  assert files.get('VOC/JPEGImages/a.JPG').read() == b'a' * 70_000


def test_a_link_to_a_folder_above_is_walked_once(tree, tmp_path):
  (tree / 'VOC' / 'again').symlink_to(tree)
  files = Files(tree, {}, tmp_path)
  assert sum(f.path.endswith('b.jpg') for f in files.walk('')) == 1


def test_links_to_folders_are_followed(tree, tmp_path):
  (tmp_path / 'linked').mkdir()
  (tmp_path / 'linked' / 'VOC').symlink_to(tree / 'VOC')
  files = Files(tmp_path / 'linked', {}, tmp_path)
  assert files.get('VOC/JPEGImages/b.jpg').read() == b'bbb'
  assert files.first('VOC/JPEGImages')


def cut(path):
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
  ('suffix', 'damage'),
  [
    *[(suffix, cut) for suffix in ('.tar', '.tgz', '.zip')],
    *[
      (suffix, lambda p: p.write_text('<html>404</html>' * 99))
      for suffix in ('.tar', '.tgz', '.zip')
    ],
    *[(suffix, lambda p: p.write_bytes(b'')) for suffix in ('.tgz', '.zip')],
    ('.tgz', lambda p: p.write_bytes(gzip.compress(b'no tar' * 500))),
    ('.7z', lambda p: None),
  ],
)
def test_a_damaged_archive_is_told(suffix, damage, tree, tmp_path):
  known = suffix if suffix != '.7z' else '.zip'
  archive = pack(tree, tmp_path / f'all{known}').rename(tmp_path / f'a{suffix}')
  damage(archive)
  with pytest.raises(UserError) as error:
    Files(archive, {}, tmp_path)
  assert str(archive) in str(error.value)
  assert 'get it again' in str(error.value) or '.zip archive' in str(
    error.value
  )


def test_a_member_with_a_wrong_checksum_is_told(tmp_path):
  archive = tmp_path / 'a.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_STORED) as target:
    target.writestr('photo.jpg', b'0123456789')
  archive.write_bytes(
    archive.read_bytes().replace(b'0123456789', b'0123X56789')
  )
  file = Files(archive, {}, tmp_path).get('photo.jpg')
  with pytest.raises(
    UserError, match=r'a\.zip: photo\.jpg cannot be read.*CRC'
  ):
    file.read()


def spoil_header(archive, *, flags=0, method=None):
  """Changes what the two headers of a zip's only member say of it."""
  content = bytearray(archive.read_bytes())
  for mark, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
    start = content.index(mark) + place
    content[start] |= flags
    if method is not None:
      content[start + 2] = method
  archive.write_bytes(content)


@pytest.mark.parametrize(
  ('how', 'message'),
  [({'flags': 1}, 'encrypted'), ({'method': 9}, 'compression')],
)
def test_a_zip_of_another_kind_is_told(how, message, tmp_path):
  archive = tmp_path / 'a.zip'
  with zipfile.ZipFile(archive, 'w') as target:
    target.writestr('list.txt', b'0123456789')
  spoil_header(archive, **how)
  file = Files(archive, {}, tmp_path).get('list.txt')
  for read in (file.read, file.text):
    with pytest.raises(UserError, match=r'a\.zip: list\.txt') as error:
      read()
    assert message in str(error.value)
    assert 'Unpack the archive and give the folder' in str(error.value)


def test_a_large_member_of_a_tar_is_read_in_parts(tree, tmp_path, monkeypatch):
  read = os.pread
  monkeypatch.setattr(os, 'pread', lambda f, n, at: read(f, min(n, 999), at))
  archive = pack(tree, tmp_path / 'a.tar')
  file = Files(archive, {}, tmp_path).get('VOC/JPEGImages/a.JPG')
  assert file.read() == b'a' * 70_000


def test_a_tar_cut_after_it_was_opened_is_told(tree, tmp_path):
  archive = pack(tree, tmp_path / 'a.tar')
  files = Files(archive, {}, tmp_path)
  with tarfile.open(archive) as content:
    end = content.getmember('./VOC/JPEGImages/a.JPG').offset_data
  os.truncate(archive, end + 100)
  with pytest.raises(UserError, match='ends within'):
    files.get('VOC/JPEGImages/a.JPG').read()


@pytest.mark.parametrize('algorithm', ['md5', 'sha1'])
def test_checksums(algorithm, tmp_path):
  path = tmp_path / 'a.tar'
  path.write_bytes(b'content')
  right = hashlib.new(algorithm, b'content').hexdigest()
  verify(path, f'{algorithm}:{right}')
  verify(path, '')
  with pytest.raises(UserError) as error:
    verify(path, f'{algorithm}:{"0" * len(right)}')
  for part in (str(path), right, '0' * len(right), 'get it again'):
    assert part in str(error.value)


def test_a_published_checksum_is_verified_on_opening(tree, tmp_path):
  archive = pack(tree, tmp_path / 'packed' / 'all.tar')
  with pytest.raises(UserError, match='not the published file'):
    Files(archive.parent, {'all.tar': 'md5:' + '0' * 32}, tmp_path)
