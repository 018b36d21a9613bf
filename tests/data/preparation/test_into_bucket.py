"""Data sets in buckets are those on disks, and load only when complete."""

import numpy as np
import pytest

from emanet_jax.data.input import pipeline
from emanet_jax.data.preparation import inspection, into_bucket
from emanet_jax.errors import UserError
from tests.data.layouts import examples, prepare
from tests.tiny import open_dataset


def test_it_is_the_set_that_a_disk_holds(
  bucket, camvid, tmp_path, make_config, caplog
):
  there = 'gs://bucket/sets/camvid'
  remote = into_bucket.prepare('camvid', str(camvid), there, allow_partial=True)
  local = prepare('camvid', camvid, tmp_path / 'here')
  assert str(remote.directory) == f'{there}/camvid/{local.directory.name}'
  for split in ('train', 'val'):
    assert remote.fingerprint(split) == local.fingerprint(split)
    mine, theirs = examples(remote, split), examples(local, split)
    assert mine.keys() == theirs.keys()
    for name in mine:
      for a, b in zip(mine[name], theirs[name], strict=True):
        np.testing.assert_array_equal(a, b)
  assert inspection.inspect(remote, 0) == []
  held = dict(bucket.objects)
  again = into_bucket.prepare('camvid', str(camvid), there, allow_partial=True)
  assert again.counts == {'train': 3, 'val': 2}
  assert bucket.objects == held  # it is left as it is
  config = make_config('camvid', data_dir=there, allow_partial=True)
  assert isinstance(open_dataset(config), pipeline.Dataset)


def test_half_of_it_does_not_load_and_is_completed(bucket, camvid, make_config):
  there = 'gs://bucket/sets/half'
  config = make_config(
    'camvid', data_dir=there, manual_dir=str(camvid), allow_partial=True
  )
  with pytest.raises(
    UserError, match=r'half/camvid/.* does not exist: prepare'
  ):
    open_dataset(config)  # of many processes, none prepares
  assert bucket.below('sets/half') == {}
  into_bucket.prepare('camvid', str(camvid), there, allow_partial=True)
  whole = bucket.below('sets/half')
  assert bucket.delete(r'sets/half/.*(preparation.json|val.*)')
  with pytest.raises(UserError, match='is no prepared data set'):
    open_dataset(config)
  into_bucket.prepare('camvid', str(camvid), there, allow_partial=True)
  assert bucket.below('sets/half').keys() == whole.keys()
  assert open_dataset(config).counts == {'train': 3, 'val': 2}
