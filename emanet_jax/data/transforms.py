"""One example to one example, with explicit randomness.

The training transform is the authors': a scale drawn from a list, padding on
the right and below, a random crop, a mirror image half of the time. They resize
the whole photo and then cut; here the crop's window alone is computed, to the
same values. Images stay uint8: the device normalises them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.spec import IGNORE_LABEL

# ImageNet's mean colour, which normalisation turns into the authors' 0.
PAD_COLOR = (124, 116, 104)

Image = UInt8[np.ndarray, 'h w 3']
Label = UInt8[np.ndarray, 'h w']


@dataclasses.dataclass(frozen=True)
class Crop:
  """The random draws of one training example.

  Attributes:
    scale: Factor on height and width, > 0.
    top: Crop's first row in the scaled and padded image, pixels.
    left: Crop's first column likewise.
    flip: Whether the crop is mirrored left to right.
    size: Height and width of the crop, pixels.
  """

  scale: float
  top: int
  left: int
  flip: bool
  size: int


def draw(
  rng: np.random.Generator,
  height: int,
  width: int,
  *,
  size: int,
  scales: Sequence[float],
  flip: bool,
) -> Crop:
  """Draws a training crop for an image of the given size.

  Args:
    rng: The only source of randomness.
    height: Of the photo, pixels.
    width: Of the photo, pixels.
    size: Height and width of the crop, pixels.
    scales: Factors to choose from, each with the same probability.
    flip: Whether half of the crops are mirrored.

  Returns:
    The crop; it lies within the scaled and padded image.
  """
  scale = float(scales[rng.integers(len(scales))])
  free_rows = max(0, _scaled(height, scale) - size)
  free_columns = max(0, _scaled(width, scale) - size)
  return Crop(
    scale=scale,
    top=int(rng.integers(free_rows + 1)),
    left=int(rng.integers(free_columns + 1)),
    flip=bool(flip and rng.random() < 0.5),
    size=size,
  )


def apply(
  image: Image, label: Label, crop: Crop
) -> tuple[UInt8[np.ndarray, 's s 3'], UInt8[np.ndarray, 's s']]:
  """Cuts a training crop, with bilinear photo and nearest label.

  Equals `F.interpolate` (bilinear with align_corners, and nearest) of the whole
  image, padding, cropping and mirroring: labels exactly, photos within half a
  grey level. Without the low-pass that image libraries add when they shrink.

  Args:
    image: uint8 RGB [h, w, 3].
    label: uint8 [h, w].
    crop: What to cut, see `draw`.

  Returns:
    uint8 RGB [size, size, 3], PAD_COLOR outside the photo, and uint8
    [size, size], 255 outside.
  """
  height, width = label.shape
  full_height = _scaled(height, crop.scale)
  full_width = _scaled(width, crop.scale)
  rows = np.arange(crop.top, min(crop.top + crop.size, full_height))
  columns = np.arange(crop.left, min(crop.left + crop.size, full_width))
  # The padding is on the right, hence on the left of a mirrored crop.
  start = crop.size - len(columns) if crop.flip else 0
  if crop.flip:
    columns = columns[::-1]
  inside = slice(0, len(rows)), slice(start, start + len(columns))

  out_image = np.empty((crop.size, crop.size, 3), np.uint8)
  out_image[:] = PAD_COLOR
  out_image[inside] = cv2.warpAffine(
    image,
    _window_matrix(rows, columns, height, width, full_height, full_width),
    (len(columns), len(rows)),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    # Rounding must not mix padding into the last row and column.
    borderMode=cv2.BORDER_REPLICATE,
  )
  out_label = np.full((crop.size, crop.size), IGNORE_LABEL, np.uint8)
  source_rows = _nearest(rows, crop.scale, height)
  source_columns = _nearest(columns, crop.scale, width)
  out_label[inside] = label[source_rows[:, None], source_columns]
  return out_image, out_label


def decode(record: Mapping[str, Any]) -> dict[str, Any]:
  """Decodes a stored record.

  Args:
    record: 'id', 'image' and 'label' as bytes, see `base.SegmentationBuilder`.

  Returns:
    'id': str, 'image': uint8 RGB [h, w, 3], 'label': uint8 [h, w].
  """
  # The labels were drawn on the photo as stored: EXIF must not turn it.
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  image = cv2.imdecode(np.frombuffer(record['image'], np.uint8), flags)
  label = cv2.imdecode(
    np.frombuffer(record['label'], np.uint8), cv2.IMREAD_UNCHANGED
  )
  return {
    'id': record['id'].decode(),
    'image': cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
    'label': label,
  }


def _scaled(length: int, scale: float) -> int:
  return max(1, int(length * scale))


def _nearest(positions: np.ndarray, scale: float, length: int) -> np.ndarray:
  """Source indices of PyTorch's nearest interpolation: floor(dst / scale)."""
  return np.minimum((positions / scale).astype(np.intp), length - 1)


def _window_matrix(
  rows: np.ndarray,
  columns: np.ndarray,
  height: int,
  width: int,
  full_height: int,
  full_width: int,
) -> np.ndarray:
  """Maps the window's pixels (x, y) to the photo's, corners aligned.

  Args:
    rows: Rows of the scaled image in the order in which they are wanted.
    columns: Its columns, descending for a mirror image.
    height: Of the photo.
    width: Of the photo.
    full_height: Of the whole scaled image.
    full_width: Of the whole scaled image.

  Returns:
    float64 [2, 3], the inverse map that warpAffine takes.
  """
  step_y = (height - 1) / max(1, full_height - 1)
  step_x = (width - 1) / max(1, full_width - 1)
  direction = -1 if columns[-1] < columns[0] else 1
  return np.array(
    [
      [direction * step_x, 0, columns[0] * step_x],
      [0, step_y, rows[0] * step_y],
    ]
  )
