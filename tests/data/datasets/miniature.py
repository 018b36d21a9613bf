"""Miniature archives and what every data set must do with them."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from emanet_jax.data import datasets
from emanet_jax.errors import UserError
from tests.data.layouts import examples, pack, prepare


def forget_checksums(monkeypatch, name):
  """Accepts any content under the names of the published archives."""
  builder = datasets.get_dataset(name)
  checksums = dict.fromkeys(builder.SPEC.checksums, '')
  spec = dataclasses.replace(builder.SPEC, checksums=checksums)
  monkeypatch.setattr(builder, 'SPEC', spec)


def pack_away(root, archive):
  """Packs each {folder in root: name in its archive}, and removes it."""
  for name, folders in archive.items():
    staging = root / 'staging'
    for folder, inside in folders.items():
      (staging / inside).parent.mkdir(parents=True, exist_ok=True)
      shutil.move(root / folder, staging / inside)
    pack(staging, root / name)
    shutil.rmtree(staging)


def save_16_bit(path, height=30, width=40):
  Image.fromarray(np.zeros((height, width), np.uint16)).save(path)


def refuse(name, root, tmp_path, *messages):
  """Checks that a preparation stops with a message that says all of this."""
  with pytest.raises(UserError) as error:
    prepare(name, root, tmp_path / 'prepared')
  for message in messages:
    assert message in str(error.value)


def compare(dataset, split, want):
  """Checks ids, order and every pixel; `want` is id → (photo path, label)."""
  got = examples(dataset, split)
  assert list(got) == list(want)
  records = dataset.source(split)
  for record, (name, (photo, label)) in zip(records, want.items(), strict=True):
    assert record['image'] == photo
    image, decoded = got[name]
    np.testing.assert_array_equal(decoded, label)
    assert image.shape == (*label.shape, 3)
