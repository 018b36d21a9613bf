"""A record that cannot be read is told by its place, wherever it is met."""

import dataclasses

import pytest

from emanet_jax.data.input import pipeline
from emanet_jax.errors import UserError
from tests import tiny

AT = 7  # the bad one of the records


class Spoilt:
  """A split of which one record is bad."""

  def __init__(self, source, make_bad):
    self._source, self._make_bad = source, make_bad

  def __len__(self):
    return len(self._source)

  def __getitem__(self, position):
    record = self._source[position]
    return self._make_bad(record) if position == AT else record


def raising(record):
  # As ArrayRecord does where its checksums do not match.
  raise RuntimeError('DATA_LOSS: corrupted chunk')


BAD = {
  'checksum': (raising, ['RuntimeError: DATA_LOSS']),
  'None': (lambda record: None, ['Type']),
  'photo': (lambda r: {**r, 'image': b'no image'}, ['is no image']),
  'label': (lambda r: {**r, 'label': b''}, ['error', 'is no image']),
}


@dataclasses.dataclass(frozen=True)
class Dataset(pipeline.Dataset):
  make_bad: object = None

  def source(self, split):
    return Spoilt(super().source(split), self.make_bad)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tiny.shared(tmp_path_factory, 'data')
  return tiny.tiny_config(data__data_dir=str(folder))


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_record_is_told_by_folder_split_and_position(kind, config):
  make_bad, why = BAD[kind]
  sound = tiny.open_dataset(config.data)
  fields = {f.name: getattr(sound, f.name) for f in dataclasses.fields(sound)}
  dataset = Dataset(**fields, make_bad=make_bad)
  place = rf'^{sound.directory}: record {AT} of {{}} cannot be read \((.*)\)'

  def train():
    batches = pipeline.train_iterator(
      dataset, config.data, batch_size=4, seed=0
    )
    for _ in range(sound.num_examples('train') // 4):
      next(batches)

  def evaluate():
    list(pipeline.evaluation_examples(dataset, 'val', [6, AT]))

  for use, split in ((train, 'train'), (evaluate, 'val')):
    with pytest.raises(UserError, match=place.format(split)) as error:
      use()
    assert len(str(error.value).splitlines()) == 1
    assert any(word in str(error.value) for word in why)
  if kind in ('checksum', 'None', 'photo'):
    with pytest.raises(UserError, match=place.format('val')):
      pipeline.image_sizes(dataset, 'val', [AT])
