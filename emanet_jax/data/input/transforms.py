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

from emanet_jax.data.reading import images
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
    angle: By which the finished crop is turned, in degrees, counter-clockwise,
      about the centre of the part that the photo covers.
  """

  scale: float
  top: int
  left: int
  flip: bool
  size: int
  angle: float = 0.0


def draw(
  rng: np.random.Generator,
  height: int,
  width: int,
  *,
  size: int,
  scales: Sequence[float],
  flip: bool,
  rotation: float = 0.0,
) -> Crop:
  """Draws a training crop for an image of the given size.

  Args:
    rng: The only source of randomness.
    height: Of the photo, pixels.
    width: Of the photo, pixels.
    size: Height and width of the crop, pixels.
    scales: Factors to choose from, each with the same probability.
    flip: Whether half of the crops are mirrored.
    rotation: Largest angle, degrees: drawn uniformly from both directions.

  Returns:
    The crop; before it is turned it lies within the scaled and padded image.
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
    angle=float(rng.uniform(-rotation, rotation)) if rotation else 0.0,
  )


def apply(
  image: Image, label: Label, crop: Crop
) -> tuple[UInt8[np.ndarray, 's s 3'], UInt8[np.ndarray, 's s']]:
  """Cuts a training crop, with bilinear photo and nearest label.

  Equals `F.interpolate` (bilinear with align_corners, and nearest) of the whole
  image, padding, cropping and mirroring: labels exactly, photos within half a
  grey level. Without the low-pass that image libraries add when they shrink.

  A turned crop is cut in the same single warp. Its labels are nearest to the
  very points that the photo is taken at; the unturned ones follow PyTorch's
  nearest, which is up to half a pixel off.

  Args:
    image: uint8 RGB [h, w, 3].
    label: uint8 [h, w].
    crop: What to cut, see `draw`.

  Returns:
    uint8 RGB [size, size, 3], PAD_COLOR outside the photo, and uint8
    [size, size], 255 outside.
  """
  height, width = label.shape
  full = _scaled(height, crop.scale), _scaled(width, crop.scale)
  rows = np.arange(crop.top, crop.top + crop.size)
  columns = np.arange(crop.left, crop.left + crop.size)
  if crop.flip:
    columns = columns[::-1]
  if crop.angle:
    to_photo = _window_matrix(rows, columns, label.shape, full)
    return _turn(image, label, to_photo, crop, _centre(crop, full))

  # Only what lies within the photo is computed. The rest is on its right, hence
  # on the left of a mirrored crop.
  rows, columns = rows[rows < full[0]], columns[columns < full[1]]
  missing = crop.size - len(columns)
  left, right = (missing, 0) if crop.flip else (0, missing)
  sides = 0, crop.size - len(rows), left, right, cv2.BORDER_CONSTANT
  photo = _warp(
    image,
    _window_matrix(rows, columns, label.shape, full),
    (len(columns), len(rows)),
    # Rounding must not mix padding into the last row and column.
    borderMode=cv2.BORDER_REPLICATE,
  )
  # The columns of the rows in use first: taking rows is copying them whole.
  rows = _nearest(rows, crop.scale, height)
  label = label[rows[0] : rows[-1] + 1]
  label = label.take(_nearest(columns, crop.scale, width), axis=1)
  label = label.take(rows - rows[0], axis=0)
  return (
    cv2.copyMakeBorder(photo, *sides, value=PAD_COLOR),
    cv2.copyMakeBorder(label, *sides, value=IGNORE_LABEL),
  )


def decode(record: Mapping[str, Any]) -> dict[str, Any]:
  """Decodes a stored record.

  Args:
    record: 'id', 'image' and 'label' as bytes, as `SegmentationBuilder` writes.

  Returns:
    'id': str, 'image': uint8 RGB [h, w, 3], 'label': uint8 [h, w].

  Raises:
    ValueError: One of them is no image.
  """
  # The labels were drawn on the photo as stored: EXIF does not turn it.
  image = images.to_rgb(record['image'])
  label = cv2.imdecode(
    np.frombuffer(record['label'], np.uint8), cv2.IMREAD_UNCHANGED
  )
  if image is None or label is None:
    raise ValueError('its photo or label is no image')
  return {'id': record['id'].decode(), 'image': image, 'label': label}


def _scaled(length: int, scale: float) -> int:
  return max(1, int(length * scale))


def _nearest(positions: np.ndarray, scale: float, length: int) -> np.ndarray:
  """Source indices of PyTorch's nearest interpolation: floor(dst / scale)."""
  return np.minimum((positions / scale).astype(np.intp), length - 1)


def _centre(crop: Crop, full: tuple[int, int]) -> tuple[float, float]:
  """(x, y) in the crop of the middle of what the scaled photo covers of it."""
  height = min(crop.size, full[0] - crop.top)
  width = min(crop.size, full[1] - crop.left)
  x = (width - 1) / 2
  return crop.size - 1 - x if crop.flip else x, (height - 1) / 2


def _turn(
  image: np.ndarray,
  label: np.ndarray,
  to_photo: np.ndarray,
  crop: Crop,
  centre: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
  """The crop that `to_photo` maps to the photo, turned by its angle."""
  # The inverse map turns back.
  turn = cv2.getRotationMatrix2D(centre, -crop.angle, 1)
  matrix, size = to_photo @ np.vstack([turn, (0, 0, 1)]), (crop.size, crop.size)
  outside = {'borderMode': cv2.BORDER_CONSTANT}
  return (
    _warp(image, matrix, size, **outside, borderValue=PAD_COLOR),
    cv2.warpAffine(
      label,
      matrix,
      size,
      flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
      **outside,
      borderValue=IGNORE_LABEL,
    ),
  )


def _warp(
  image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], **border: Any
) -> np.ndarray:
  """A bilinear warp to (width, height) by the inverse map."""
  # OpenCV warps four channels in little more than half the time of three.
  image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
  flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
  image = cv2.warpAffine(image, matrix, size, flags=flags, **border)
  return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)


def _window_matrix(
  rows: np.ndarray,
  columns: np.ndarray,
  shape: tuple[int, int],
  full: tuple[int, int],
) -> np.ndarray:
  """Maps the window's pixels (x, y) to the photo's, corners aligned.

  Args:
    rows: Rows of the scaled image in the order in which they are wanted.
    columns: Its columns, descending for a mirror image.
    shape: Height and width of the photo.
    full: Height and width of the whole scaled image.

  Returns:
    float64 [2, 3], the inverse map that warpAffine takes.
  """
  step_y, step_x = (
    (length - 1) / max(1, scaled - 1)
    for length, scaled in zip(shape, full, strict=True)
  )
  direction = -1 if columns[-1] < columns[0] else 1
  return np.array(
    [
      [direction * step_x, 0, columns[0] * step_x],
      [0, step_y, rows[0] * step_y],
    ]
  )
