"""Photos to files: the right labels, in the right place, come what may."""

import json
import pathlib

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from emanet_jax.data.datasets import get_dataset
from emanet_jax.errors import UserError
from emanet_jax.models.segmenter import MEAN, STD, create_model
from emanet_jax.prediction import predict, segment, submission
from emanet_jax.visualization.overlays import overlay
from tests import tiny

SPEC = get_dataset('shapes').SPEC
PALETTE = np.array(SPEC.palette, np.uint8)
SIZES = {
  'a': (40, 56),
  'b.c': (56, 40),
  'sub/d': (33, 49),
  'sub/deep/e': (40, 56),
  'sub/turned': (56, 40),
}


def smooth(seed, size):
  coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
  return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def upright():
  """Photos by name, as a viewer shows them."""
  return {name: smooth(i, size) for i, (name, size) in enumerate(SIZES.items())}


@pytest.fixture(scope='module')
def folder(upright, tmp_path_factory):
  """Their files, and two that are no photos."""
  folder = tmp_path_factory.mktemp('photos')
  for name, image in upright.items():
    path = folder / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if name == 'sub/turned':
      image, exif[0x0112] = np.rot90(image), 6
    Image.fromarray(image).save(path, exif=exif)
  (folder / 'bad.jpg').write_bytes(b'hello')
  whole = cv2.imencode('.jpg', upright['a'])[1].tobytes()
  (folder / 'sub' / 'cut.jpg').write_bytes(whole[:-20])
  return folder


@pytest.fixture(scope='module')
def network():
  model = create_model(tiny.tiny_config().model, SPEC.num_classes)
  return model, tiny.random_variables(model)


@pytest.fixture(scope='module')
def workdir(network, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  tiny.save_step(tiny.tiny_config(), network[1], workdir, step=7)
  return workdir


@pytest.fixture(scope='module')
def alone(network, upright):
  """Probabilities of every upright photo alone, padded by hand."""
  model, variables = network
  apply = jax.jit(lambda x: model.apply(variables, x, train=False))
  mean, std = np.float32(MEAN) * 255, np.float32(STD) * 255
  found = {}
  for name, image in upright.items():
    height, width = image.shape[:2]
    above = ((0, -(height - 1) % 8), (0, -(width - 1) % 8), (0, 0))
    logits = apply(np.pad((image - mean) / std, above)[None])
    found[name] = np.asarray(jax.nn.softmax(logits))[0, :height, :width]
  return found


def options(folder, output, **changes):
  given = {
    'eval__shape_step': 64,  # one shape, whichever photos there are
    'predict__input': str(folder),
    'predict__output': str(output),
  }
  return tiny.tiny_config(**{**given, **changes})


@pytest.fixture(scope='module')
def output(folder, workdir, tmp_path_factory):
  """What a run over the folder leaves."""
  output = tmp_path_factory.mktemp('out') / 'results'
  config = options(folder, output, predict__probabilities=True)
  with pytest.raises(UserError) as error:
    predict.predict(config, str(workdir))
  assert str(error.value).startswith(
    '2 of 7 photos failed; the others are done'
  )
  assert f'{folder}/bad.jpg is no photo' in str(error.value)
  assert f'{folder}/sub/cut.jpg cannot be decoded' in str(error.value)
  return output


def test_the_folders_are_mirrored(output):
  found = {str(p.relative_to(output)) for p in output.rglob('[!.]*.*')}
  assert found == {
    'origin.json',
    *(f'{kind}/{n}.png' for n in SIZES for kind in ('labels', 'overlays')),
    *(f'probabilities/{n}.npz' for n in SIZES),
    'labels/b.c.png',
  }


def test_labels_are_those_of_each_photo_alone(output, alone, upright):
  classes = set()
  for name, expected in alone.items():
    with Image.open(output / 'labels' / f'{name}.png') as image:
      assert image.mode == 'P'
      palette = np.array(image.getpalette()[: 3 * SPEC.num_classes])
      np.testing.assert_array_equal(palette.reshape(-1, 3), PALETTE)
      label = np.asarray(image)
    if name == 'sub/turned':  # in the file, a label lies on the stored pixels
      label = np.rot90(label, -1)
    sure = np.diff(np.sort(expected)[..., -2:])[..., 0] > 1e-4
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(label[sure], expected.argmax(-1)[sure])
    classes |= set(label.ravel().tolist())
    picture = np.asarray(Image.open(output / 'overlays' / f'{name}.png'))
    expected = overlay(upright[name], label, PALETTE)
    np.testing.assert_array_equal(picture, expected)
  assert len(classes) >= 3


def test_probabilities_are_those_of_each_photo_alone(output, alone):
  for name, expected in alone.items():
    with np.load(output / 'probabilities' / f'{name}.npz') as content:
      found = content['probabilities']
    assert found.dtype == np.float16
    if name == 'sub/turned':
      found = np.rot90(found, -1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_exists_stays(output, folder, workdir, monkeypatch, tmp_path):
  before = tiny.hash_files(output)
  lost = output / 'overlays' / 'sub' / 'd.png'
  lost.unlink()
  kept = output / 'labels' / 'sub' / 'd.png'
  kept.write_bytes(b'mine')
  config = options(folder / 's*' / '**' / '[de].png', output)
  config.predict.probabilities = True
  # A pattern's names begin at its first folder without a wildcard.
  report = predict.predict(config, str(workdir))
  assert (report.predicted, report.skipped, report.failed) == (1, 1, {})
  assert kept.read_bytes() == b'mine'
  config.predict.overwrite = True
  report = predict.predict(config, str(workdir))
  assert (report.predicted, report.skipped) == (2, 0)
  assert tiny.hash_files(output) == before

  monkeypatch.setattr(segment, '_create_look', None)
  config.predict.overwrite = False
  report = predict.predict(config, str(workdir))
  assert (report.predicted, report.skipped) == (0, 2)
  config.eval.multi_scale = True
  with pytest.raises(UserError, match='holds results of another protocol'):
    predict.predict(config, str(workdir))
  assert tiny.hash_files(output) == before
  origin = json.loads((output / 'origin.json').read_text())
  assert origin['checkpoint'] == f'{workdir}/checkpoints/7'

  # Results that version 0.1 left are gone on with.
  golden = tiny.REPOSITORY / 'tests' / 'golden' / 'workdir_0_1.json'
  old = {**origin, 'model': json.loads(golden.read_text())['config']['model']}
  assert old != origin
  (output / 'origin.json').write_text(json.dumps(old))
  config.eval.multi_scale = False
  report = predict.predict(config, str(workdir))
  assert (report.predicted, report.skipped) == (0, 2)
  assert json.loads((output / 'origin.json').read_text()) == origin


def test_rows_of_a_photo_may_lie_on_two_devices(
  output, folder, workdir, tmp_path, monkeypatch
):
  spaces = tiny.batches_spaces(monkeypatch)
  config = options(folder / 'a.png', tmp_path, mesh__space=2)
  assert predict.predict(config, str(workdir)).predicted == 1
  assert set(spaces) == {2}
  found, expected = (
    np.asarray(Image.open(place / 'labels' / 'a.png'))
    for place in (tmp_path, output)
  )
  np.testing.assert_array_equal(found, expected)
  assert len(np.unique(found)) > 1


def test_windows_make_large_photos_possible(
  network, folder, workdir, tmp_path, monkeypatch, caplog
):
  protocol = {'eval__window': 33, 'eval__window_stride': 24}
  config = options(folder / 'a.png', tmp_path / 'windows', **protocol)
  assert predict.predict(config, str(workdir)).predicted == 1
  config = options(folder / 'a.png', tmp_path / 'whole')

  def too_small(*_):
    def predictor(*_):
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 9 bytes')

    return predictor

  monkeypatch.setattr(segment, '_create_look', too_small)
  monkeypatch.setattr(segment, '_LARGE', 999)
  with pytest.raises(
    UserError, match=r'not enough memory .*65×65; look th'
  ) as e:
    predict.predict(config, str(workdir))
  assert '--config.eval.window=769' in str(e.value)
  assert 'a.png: 56×40) are looked at whole' in caplog.text


def test_attention_pages_go_with_the_labels(folder, workdir, tmp_path):
  config = options(
    folder / '[ab]*.png',
    tmp_path,
    predict__attention=True,
    predict__bases=(3, 1),
    predict__pixel=(45, 30),
  )
  with pytest.raises(UserError, match=r'a\.png is 40×56 .*\(45, 30\) lies out'):
    predict.predict(config, str(workdir))
  pages = {p.name for p in (tmp_path / 'attention' / 'b.c').iterdir()}
  names = ('all_bases', 'bases_3_1', 'stages_3_1', 'pixel_45_30')
  assert pages == {f'{name}.png' for name in names}
  assert [p.name for p in (tmp_path / 'labels').iterdir()] == ['b.c.png']


def test_a_submission_holds_the_whole_split(
  network, workdir, upright, alone, monkeypatch, tmp_path
):
  form = submission.Format('r/{}_x.png', tuple(range(10, 17)))
  monkeypatch.setitem(submission.FORMATS, 'shapes', form)
  files = {
    name.replace('/', '_'): cv2.imencode('.png', image[..., ::-1])[1]
    for name, image in upright.items()
  }
  records = [
    {'id': name.encode(), 'image': png.tobytes()} for name, png in files.items()
  ]
  counts = {'val': len(records)}
  listed = tiny.Listed(SPEC, pathlib.Path('none'), counts, tuple(records))
  monkeypatch.setattr(predict, 'load_dataset', lambda directory: listed)
  config = tiny.tiny_config(predict__split='val', predict__submission='shapes')
  predict.predict(config, str(workdir))
  output = workdir / 'predict'
  found = {str(p.relative_to(output)) for p in output.rglob('[!.]*.*')}
  pngs = {f'submission/r/{name}_x.png' for name in files}
  assert found == {'origin.json', 'shapes_val.zip', *pngs}
  for name, expected in alone.items():
    path = output / f'submission/r/{name.replace("/", "_")}_x.png'
    label = np.asarray(Image.open(path))
    assert np.mean(label == 10 + expected.argmax(-1)) > 0.99


def test_mistakes_show_before_anything_is_compiled(
  network, workdir, folder, monkeypatch, tmp_path
):
  monkeypatch.setattr(predict, 'segment_photos', None)

  def refused(message, where=workdir, **changes):
    config = options(folder, tmp_path / 'out', **changes)
    with pytest.raises(UserError, match=message):
      predict.predict(config, str(where))
    assert not (tmp_path / 'out').exists()

  refused('holds no checkpoint; train first', where=tmp_path / 'none')
  refused('nowhere does not exist', predict__input='nowhere')
  refused('give one: a photo, folder', predict__input='')
  refused('give one: a photo, folder', predict__split='val')
  refused('batch_size is 0', eval__batch_size=0)
  refused('num_bases: checkpoint 4, now 5', model__head__num_bases=5)
  refused('known are voc2012', predict__submission='coco')
  refused('takes 21 classes, but', predict__submission='voc2012')
  attention = {'predict__attention': True}
  refused(r'network has bases 0 to 3', predict__bases=(1, 4), **attention)
  refused('give row and column', predict__pixel=(3,), **attention)
  refused('ask for these with', predict__pixel=(3, 4))
  unprepared = {'predict__input': '', 'data__data_dir': str(tmp_path)}
  refused('does not exist: prepare', predict__split='val', **unprepared)
  monkeypatch.setattr(
    predict, 'get_spec', lambda *_: get_dataset('camvid').SPEC
  )
  refused('classifier has 7 classes, but data set camvid has 11')
  (folder / 'sub' / 'd.jpg').write_bytes(b'')
  refused(r'sub/d\.jpg and .*sub/d\.png')
  (folder / 'sub' / 'd.jpg').unlink()


def test_the_users_own_classes_come_from_the_prepared_folder(tmp_path):
  assert predict.get_spec('voc2012', str(tmp_path)).num_classes == 21
  with pytest.raises(
    UserError, match=r"'folder' are in its prepared .*data_dir"
  ):
    predict.get_spec('folder', str(tmp_path))


def test_main_predicts(workdir, folder, tmp_path, commands):
  flags = tiny.flags(workdir, predict__input=folder, predict__output=tmp_path)
  done = commands.run('emanet_jax.main', *flags, '--mode=predict')
  text = done.stderr
  assert done.returncode == 1
  for part in ('images/s', 'in 0:', 'predicted: 5', 'exist: 0', 'failed: 2'):
    assert part in text
  assert 'error: 2 of 7 photos failed; the others are done:' in text
  assert 'Traceback' not in text
  labels = [p.relative_to(tmp_path) for p in tmp_path.glob('labels/**/*.png')]
  assert len(labels) == len(SIZES)
