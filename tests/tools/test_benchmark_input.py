"""The benchmark of the input: fair opponents, figures that add up."""

import functools
import importlib.util
import json
import pathlib
import time

import cv2
import numpy as np
import pytest

from emanet_jax.config import default_config
from emanet_jax.data.input import transforms
from emanet_jax.data.input.transforms import Crop
from emanet_jax.tools.benchmark import input as training_input
from emanet_jax.tools.benchmark import photos, torch_input
from tests import tiny

HAS_TORCH = importlib.util.find_spec('torch') is not None
MEAN = np.float64([0.485, 0.456, 0.406])
STD = np.float64([0.229, 0.224, 0.225])


@pytest.fixture(scope='module')
def records():
  return photos.made_up(10)


@pytest.mark.skipif(not HAS_TORCH, reason='PyTorch is not installed')
@pytest.mark.parametrize('scale', default_config().data.scales)
def test_the_opponent_does_the_same_work(records, scale):
  rng = np.random.default_rng(1)
  for record in records[:4]:
    ours = transforms.decode(record)
    crop = transforms.draw(
      rng, *ours['label'].shape, size=513, scales=(scale,), flip=True
    )
    got_image, got_label = transforms.apply(ours['image'], ours['label'], crop)
    image, label = torch_input.cut(*torch_input.decode(record), crop)
    assert str(image.dtype) == 'torch.float32'
    assert str(label.dtype) == 'torch.int64'
    np.testing.assert_array_equal(got_label, label.numpy())
    theirs = (image.numpy().transpose(1, 2, 0) * STD + MEAN) * 255
    np.testing.assert_allclose(got_image, theirs, rtol=0, atol=0.51)


@pytest.mark.skipif(not HAS_TORCH, reason='PyTorch is not installed')
def test_the_opponent_pads_and_mirrors_as_ours(records):
  ours = transforms.decode(records[0])
  for flip in (False, True):
    crop = Crop(0.5, 0, 0, flip, 513)
    _, want = transforms.apply(ours['image'], ours['label'], crop)
    _, label = torch_input.cut(*torch_input.decode(records[0]), crop)
    np.testing.assert_array_equal(label.numpy(), want)
    assert (want[:, -1] == 255).all() != flip


def test_the_photos_are_like_those_of_voc(records):
  sizes = [len(record['image']) for record in records]
  assert 90_000 < np.mean(sizes) < 115_000
  shapes = set()
  for record in records:
    example = transforms.decode(record)
    shapes.add(example['label'].shape)
    assert example['image'].shape[:2] == example['label'].shape
    labels = set(np.unique(example['label'])) - {255}
    assert 0 in labels
    assert 1 < len(labels) < 8
    assert max(labels) <= 20
    assert 30 < example['image'].std() < 90
  assert shapes == {(375, 500), (333, 500), (500, 375)}
  again = photos.made_up(10)
  assert again == records
  assert photos.made_up(1, seed=1)[0]['image'] != records[0]['image']


def test_photos_have_the_spectrum_of_natural_ones(records):
  data = np.frombuffer(records[0]['image'], np.uint8)
  gray = np.float64(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
  power = np.abs(np.fft.fft2(gray - gray.mean()))
  frequency = np.hypot(
    np.fft.fftfreq(gray.shape[0])[:, None], np.fft.fftfreq(gray.shape[1])
  )
  rings = [(0.01, 0.02), (0.02, 0.04), (0.04, 0.08), (0.08, 0.16)]
  means = [
    power[(low <= frequency) & (frequency < high)].mean() for low, high in rings
  ]
  halves = np.divide(means[1:], means[:-1])  # at double the frequency
  np.testing.assert_allclose(halves, 0.5, atol=0.08)


@pytest.fixture(scope='module')
def result(records):
  config = default_config().data
  config.crop_size, config.num_threads, config.prefetch = 129, 2, 3
  dataset = photos.dataset_of(records, config.train_split)
  return training_input.measure(dataset, config, batch_size=4, seconds=3.0)


def test_the_figures_add_up(result):
  assert json.loads(json.dumps(result)) == result
  given = result['input']
  assert given['batch_bytes'] == 4 * 129 * 129 * 4
  assert given['batches_ahead'] == 3
  assert given['records'] == 10_582
  names = ['ours', 'decoding alone', *(['PyTorch'] if HAS_TORCH else [])]
  assert list(result['rates']) == names
  assert list(result['ratios']) == names[1:]
  spreads = [
    *(rate for rates in result['rates'].values() for rate in rates.values()),
    *result['ratios'].values(),
    result['first_batch_seconds'],
  ]
  for middle, least, most in spreads:
    assert 0 < least <= middle <= most
  ours, alone = (result['rates'][n]['cpu_second'] for n in names[:2])
  _, least, most = result['ratios']['decoding alone']
  assert least * alone[1] <= ours[2]
  assert most * alone[2] >= ours[1]
  assert result['first_batch_seconds'][0] < 2


def test_every_image_that_is_begun_is_finished_and_counted(
  records, monkeypatch
):
  decode, decoded = transforms.decode, []

  def slow(record):
    time.sleep(0.005)
    decoded.append(decode(record))
    return decoded[-1]

  monkeypatch.setattr(transforms, 'decode', slow)
  config = default_config().data
  config.crop_size, config.num_threads = 65, 3
  dataset = photos.dataset_of(records, config.train_split)
  ours = training_input._Ours(dataset, records, config, batch_size=5)
  count = ours.read(0.1)
  finished = len(decoded)
  assert finished % 5 == 0
  # The run-time checks of types look at a record here and there.
  assert 0 <= count - finished < 5
  time.sleep(0.1)
  assert len(decoded) == finished


def test_the_table_shows_the_medians(result):
  text = training_input.table(result)
  for name, rates in result['rates'].items():
    (line,) = [x for x in text.splitlines() if x.startswith(f'{name}  ')]
    assert f' {rates["cpu_second"][0]:.1f} (' in line
    assert f' {rates["wall_second"][0]:.1f} (' in line
  assert ('PyTorch is not installed' in text) != HAS_TORCH
  ratio = result['ratios']['decoding alone'][0]
  assert f'ours / decoding alone: {ratio:.2f} (' in text


@pytest.fixture
def benchmark(commands):
  return functools.partial(commands.run, 'emanet_jax.tools.benchmark')


def test_the_program_measures_a_prepared_set(
  tmp_path, tmp_path_factory, benchmark
):
  out = tmp_path / 'figures.json'
  finished = benchmark(
    *('input', '--seconds=1', '--crop=65', '--batch=4', '--threads=2'),
    *('--name=shapes', '--split=train', f'--out={out}'),
    f'--data_dir={tiny.shared(tmp_path_factory, "data")}',
  )
  assert finished.returncode == 0, finished.stderr
  figures = json.loads(pathlib.Path(out).read_text())
  assert figures['input']['records'] == 512
  assert figures['input']['crop_size'] == 65
  assert figures['input']['threads'] == 2
  assert training_input.table(figures) in finished.stdout
  # Own progress, and none of libraries.
  assert 'Data set shapes in' in finished.stderr
  assert 'dataset_info' not in finished.stderr


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--name=camvid'], 'needs --data_dir=R'),
    (['--split=nothing'], "no split 'nothing'"),
  ],
)
def test_flags_that_mean_nothing_are_refused(flags, message, benchmark):
  finished = benchmark('input', '--photos=1', *flags)
  assert finished.returncode == 1
  assert message in finished.stderr
  assert 'Traceback' not in finished.stderr


def test_an_unknown_subject_is_explained(benchmark):
  finished = benchmark('everything')
  assert finished.returncode == 1
  known = 'model, train, em, compile, evaluate, scaling, input'
  assert f'give one of {known}' in finished.stdout + finished.stderr
