"""Label files of all kinds to class indices."""

import io
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import UInt8

from emanet_jax.data.checks import open_image
from emanet_jax.data.files import File
from emanet_jax.errors import UserError


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
  if image.mode not in ('P', 'L'):
    raise UserError(
      f'{file.where} holds {image.mode} pixels; expected one 8-bit channel '
      '(grey or palette PNG) of class indices. Colour renderings of labels '
      'cannot be used: take the label files as published.'
    )
  return np.array(image, np.uint8)


def read_mat(file: File) -> dict[str, Any]:
  """Reads a MATLAB 5 file, structs as objects with attributes.

  Raises:
    UserError: The file is damaged.
  """
  try:
    return scipy.io.loadmat(
      io.BytesIO(file.read()), squeeze_me=True, struct_as_record=False
    )
  except UserError:
    raise
  except Exception as error:  # a damaged file raises a dozen types
    raise UserError(
      f'{file.where} cannot be read ({error}): expected a MATLAB 5 file. '
      'Restore it, or unpack the archive again.'
    ) from error
