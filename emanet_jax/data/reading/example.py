"""One example of a data set, before it is read and after."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.reading.files import File


@dataclasses.dataclass(frozen=True)
class Item:
  """Where one example lies, before it is read.

  Attributes:
    id: Unique within its split.
    image: The photo.
    label: The label; None in an unlabelled split.
  """

  id: str
  image: File
  label: File | None


@dataclasses.dataclass(frozen=True)
class Example:
  """One example as it is going to be stored.

  Attributes:
    id: Unique within its split.
    image: The photo's file content, as published.
    label: uint8 [h, w], classes 0..C-1 and 255; None in an unlabelled split.
    image_where: The photo's place, for error messages.
    label_where: The label's place, for error messages.
  """

  id: str
  image: bytes
  label: UInt8[np.ndarray, 'h w'] | None
  image_where: str
  label_where: str
