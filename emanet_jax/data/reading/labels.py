"""Label files of all kinds to class indices."""

import io
from typing import Any

import cv2
import numpy as np
import scipy.io
from jaxtyping import Bool, UInt8

from emanet_jax.data.reading.files import File
from emanet_jax.data.reading.images import open_image
from emanet_jax.errors import UserError

# Read seven times as fast as OpenCV's default, at about the same size.
_PNG = (
  *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
  *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
  *(cv2.IMWRITE_PNG_COMPRESSION, 3),
)


def read_index_png(file: File) -> UInt8[np.ndarray, 'h w']:
  """Reads a single-channel PNG (grey or palette) as class indices.

  Args:
    file: The label. A palette PNG yields its indices, not its colours.

  Returns:
    uint8 [h, w], the values as stored.

  Raises:
    UserError: The file is damaged, or holds colours instead of indices.
  """
  image = open_image(file.read(), file.where)
  if image.format != 'PNG' or image.mode not in ('P', 'L'):
    raise UserError(
      f'{file.where} is {image.format} of {image.mode} pixels; expected a PNG '
      'with one 8-bit channel (grey or palette) of class indices. Colour '
      'renderings of labels cannot be used: take the label files as published.'
    )
  return np.array(image, np.uint8)


def read_mat(file: File, *fields: str) -> Any:
  """Reads a field of a MATLAB 5 file.

  Args:
    file: The label.
    fields: A variable, then fields of the structs within it; without any, all
      variables by name.

  Raises:
    UserError: The file is damaged or has no such field.
  """
  content = file.read()
  try:
    value = scipy.io.loadmat(
      io.BytesIO(content), squeeze_me=True, struct_as_record=False
    )
    for depth, field in enumerate(fields):
      value = getattr(value, field) if depth else value[field]
  except Exception as error:  # a damaged file raises a dozen types
    raise UserError(
      f'{file.where} cannot be read ({error!r}): expected a MATLAB 5 file with '
      f'{".".join(fields) or "variables"}. Restore it, or unpack the archive '
      'again.'
    ) from error
  return value


def encode_png(label: UInt8[np.ndarray, 'h w']) -> bytes:
  """Returns a label as the PNG that is stored for training."""
  _, png = cv2.imencode('.png', label, _PNG)
  return png.tobytes()


def decode_rle(
  counts: str | list, size: tuple[int, int]
) -> Bool[np.ndarray, 'h w']:
  """Decodes a mask of run lengths, as they are or as COCO compresses them.

  The runs are of 0 and 1 in turn, down the columns. Compressed, a number is a
  group of characters counted from '0': five bits each, the lowest first, while
  a sixth bit says that more follow; the highest bit of a number is its sign.
  From the fourth number on, it is the difference to the number two before.

  Args:
    counts: The compressed runs, or a list of whole numbers.
    size: Height and width.

  Raises:
    ValueError: The runs do not fill the mask, or are none.
  """
  runs = _decompress(counts) if isinstance(counts, str) else np.array(counts)
  height, width = size
  if runs.dtype.kind not in 'iu' or runs.sum() != height * width:
    raise ValueError(f'the runs do not make {height}x{width} pixels')
  values = np.repeat(np.arange(runs.size) % 2 == 1, runs)
  return values.reshape(width, height).T


def _decompress(counts: str) -> np.ndarray:
  codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
  ends = np.flatnonzero(codes < 32)
  if not ends.size or ends[-1] + 1 != codes.size:
    raise ValueError(f'a number is cut short in {counts[-20:]!r}')
  starts = np.insert(ends[:-1] + 1, 0, 0)
  lengths = ends - starts + 1
  shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
  runs = np.add.reduceat((codes & 31) << shifts, starts)
  runs -= (codes[ends] & 16) << (shifts[ends] + 1)
  runs[1::2] = np.cumsum(runs[1::2])
  runs[2::2] = np.cumsum(runs[2::2])
  return runs
