"""Plots of any count of classes and records, and their safe saving."""

import numpy as np
import pytest

from emanet_jax.runtime import atomic
from emanet_jax.visualization import figures, plots
from tests.pictures import read, where


def records(count):
  train = [
    {
      'step': step,
      'split': 'train',
      'time': 0.0,
      'loss': 1 / step,
      'learning_rate': 0.01,
    }
    for step in range(1, count + 1)
  ]
  scores = {'mIoU': 0.5, 'pAcc': 0.9}
  return [*train, {'step': count, 'split': 'eval', 'time': 0.0, **scores}]


@pytest.mark.parametrize('count', [2, 25, 26, 171])
def test_confusion_png(tmp_path, count):
  hist = np.eye(count, dtype=np.int64)
  hist[-1] = 0  # A class without pixels.
  path = tmp_path / 'confusion.png'
  plots.confusion_png(path, hist, [f'class $_{i}$' for i in range(count)])
  picture = read(path)
  assert max(picture.shape) < 5000
  full = where(picture, (8, 48, 107))  # Blues at 100 %
  assert full.sum() > 20 * (count - 1)
  assert where(picture, (228, 231, 235)).sum() > 20 * count


@pytest.mark.parametrize(
  'made',
  [
    [],
    records(1),
    records(1)[:1],
    records(1)[1:],
    records(300),
    [{'step': 1, 'split': 'train', 'time': 0.0, 'loss': None}],
    [{'step': 1, 'split': 'eval', 'time': 0.0, 'mIoU': None}],
    [{'step': 1, 'split': 'eval', 'time': 0.0, 'mIoU': 0.5}],
  ],
)
@pytest.mark.filterwarnings('error')
def test_curves_of_any_records(tmp_path, made):
  path = tmp_path / 'curves.png'
  plots.curves_png(path, made)
  picture = read(path)
  has_rate = any('learning_rate' in record for record in made)
  has_score = any(record.get('mIoU') for record in made)
  assert where(picture, (217, 98, 43)).any() == has_rate
  assert where(picture, (43, 138, 92)).any() == has_score


def test_series_are_sorted_and_split():
  made = [
    {'step': 4, 'split': 'train', 'time': 0.0, 'loss': None},
    {'step': 2, 'split': 'train', 'time': 0.0, 'loss': 0.5},
    {'step': 2, 'split': 'eval', 'time': 0.0, 'loss': 9.0},
  ]
  series = plots._series(made, 'train', 'loss')
  np.testing.assert_array_equal(series, [[2, 0.5], [4, np.nan]])


def test_smoothing_equals_a_plain_average():
  values = np.random.default_rng(0).random(200)
  values[50] = np.nan
  smooth = plots._smooth(values)
  for i in (0, 2, 50, 120, 199):
    half = min(4, i)
    window = values[i - half : i + half + 1]
    assert smooth[i] == pytest.approx(np.nanmean(window)), i


def test_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
  path = tmp_path / 'figure.png'
  path.write_bytes(b'old')

  def full_disk(*_, **__):
    raise OSError('no space left')

  monkeypatch.setattr(atomic.os, 'replace', full_disk)
  with pytest.raises(OSError, match='no space'):
    figures.save_png(path, figures.Figure())
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]
