"""What a run is told before it begins."""

import dataclasses
import pathlib

import pytest
from absl import logging

from emanet_jax.data.datasets import get_dataset
from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from emanet_jax.runtime import sharding
from emanet_jax.training import checks
from tests import tiny


@pytest.fixture
def warnings(monkeypatch):
  found = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: found.append(text % values)
  )
  return found


@pytest.mark.parametrize(
  ('crop_size', 'nearest'),
  [(96, '89 and 97'), (512, '505 and 513'), (768, '761 and 769'), (5, '9')],
)
def test_crops_on_another_grid_are_told(crop_size, nearest, warnings):
  config = tiny.tiny_config(data__crop_size=crop_size)
  checks.check(config, sharding.create_mesh())
  (warning,) = warnings
  assert f'data.crop_size is {crop_size}: ' in warning
  assert 'the output stride, 8, plus one' in warning
  assert warning.endswith(f'such sizes are {nearest}.')


@pytest.mark.parametrize('changes', [{}, {'model__align_corners': False}])
def test_others_are_not(changes, warnings):
  size = 97 if not changes else 96
  config = tiny.tiny_config(data__crop_size=size, **changes)
  checks.check(config, sharding.create_mesh())
  assert not warnings


@dataclasses.dataclass(frozen=True)
class Reported(pipeline.Dataset):
  """A data set of which only the preparation's report is there."""

  void: tuple = ()

  def report(self):
    shares = {s: float(s not in self.void) for s in ('train', 'val')}
    return {'splits': {s: {'pixels': {'a': x}} for s, x in shares.items()}}


@pytest.mark.parametrize('void', [(), ('val',), ('train',), ('train', 'val')])
def test_a_split_without_labels_is_told(void, warnings, monkeypatch):
  spec = get_dataset('shapes').SPEC
  dataset = Reported(spec, pathlib.Path('R'), {}, void=void)
  monkeypatch.setattr(pipeline, 'open_dataset', lambda data, splits: dataset)
  config = tiny.tiny_config()
  if 'train' in void:
    with pytest.raises(UserError, match='no pixel of train has a class, so'):
      checks.open_dataset(config)
    return
  assert checks.open_dataset(config) is dataset
  assert [w[: w.index(':', 3)] for w in warnings] == (
    ['R: no pixel of val has a class'] if void else []
  )
