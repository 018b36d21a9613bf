"""Records as of PASCAL VOC 2012, made up: what decoding them costs is real."""

import dataclasses
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from emanet_jax.data import datasets
from emanet_jax.data.input.pipeline import Dataset
from emanet_jax.data.reading import labels
from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError

# Height and width; of the photos of VOC about a fifth are upright.
_SIZES = ((375, 500), (333, 500), (375, 500), (500, 375), (375, 500))
_BYTES = 110_000  # of the average photo of VOC


@dataclasses.dataclass(frozen=True)
class InMemory(Dataset):
  """A data set whose records are given; every split is the same."""

  records: Sequence[dict[str, bytes]] = ()

  def source(self, split: str) -> Sequence[dict[str, bytes]]:
    """The records, whatever the split."""
    return self.records

  def fingerprint(self, split: str) -> str:
    """None: nothing goes on from a benchmark."""
    return ''


def made_up(count: int, seed: int = 0) -> Sequence[dict[str, bytes]]:
  """Draws records like those of VOC.

  Args:
    count: How many.
    seed: Of the drawing.

  Returns:
    {'id', 'image': JPEG, 'label': PNG} in bytes: the sizes of VOC, both ways
    up; photos with the 1/f spectrum of natural ones and the usual size in
    bytes; labels of a few objects with an ignored rim.
  """
  rng = np.random.default_rng(seed)
  records = []
  for index in range(count):
    size = _SIZES[index % len(_SIZES)]
    label = labels.encode_png(_label(rng, *size))
    records.append(
      {
        'id': f'{index:06d}'.encode(),
        'image': _jpeg(_photo(rng, *size)),
        'label': label,
      }
    )
  return records


def dataset_of(records: Sequence[dict[str, bytes]], split: str) -> InMemory:
  """A split of VOC: those records over and over, up to its published number.

  The number matters: Grain's shuffling takes longer the smaller a set is.

  Raises:
    UserError: VOC has no such split.
  """
  spec = datasets.get_dataset('voc2012').SPEC
  if split not in spec.num_examples:
    raise UserError(
      f'There is no split {split!r}; the photos are made up for one of '
      f'{", ".join(spec.num_examples)}.'
    )
  count = spec.num_examples[split]
  repeated = [records[i % len(records)] for i in range(count)]
  return InMemory(spec, pathlib.Path(), {split: count}, repeated)


def _photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """A coloured noise, uint8 [h, w, 3], with amplitudes as 1/frequency."""
  frequency = np.hypot(
    np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
  )
  frequency[0, 0] = np.inf
  planes = []
  for spread in (50, 12, 12):  # luma, chroma, chroma, in grey levels
    noise = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
    plane = np.fft.irfft2(noise, (height, width))
    planes.append(128 + spread * plane / plane.std())
  ycc = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
  return cv2.cvtColor(ycc, cv2.COLOR_YCrCb2BGR)


def _jpeg(photo: np.ndarray) -> bytes:
  """The photo as a JPEG of the highest quality below the usual size."""
  for quality in range(98, 50, -2):
    _, data = cv2.imencode('.jpg', photo, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if len(data) <= _BYTES:
      break
  return data.tobytes()


def _label(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  label = np.zeros((height, width), np.uint8)
  for _ in range(rng.integers(1, 5)):
    ellipse = (
      (int(rng.integers(width)), int(rng.integers(height))),
      tuple(int(x) for x in rng.integers(20, 150, 2)),
      *(float(rng.uniform(0, 180)), 0, 360),
    )
    cv2.ellipse(label, *ellipse, int(rng.integers(1, 21)), cv2.FILLED)
    cv2.ellipse(label, *ellipse, IGNORE_LABEL, 5)
  return label
