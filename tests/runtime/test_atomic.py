"""A file is there completely or not at all."""

import os

import pytest

from emanet_jax.runtime import atomic


def test_a_file_is_there_completely_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'new' / 'a.png'

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
      atomic.write(path, b'content')
  assert list(path.parent.iterdir()) == []
  atomic.write(path, b'content')
  assert path.read_bytes() == b'content'
  assert list(path.parent.iterdir()) == [path]
