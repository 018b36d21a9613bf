"""What a data set is to the rest of the program; needs no data library."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

IGNORE_LABEL = 255  # In every data set, after preparation.


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """What the rest of the program needs to know about a data set.

  Attributes:
    name: The name in configs, which is also the name of the file.
    classes: Class names; the position is the label.
    palette: One (red, green, blue) in 0..255 a class, for pictures.
    num_examples: Split name to the published number of images.
    homepage: Where the data set is described.
    citation: BibTeX.
    licence: Terms in a sentence, for whoever wants to use the photos.
    download: What to get and which folders the manual directory then holds;
      '' when the images are generated and nothing is needed.
  """

  name: str
  classes: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  num_examples: Mapping[str, int]
  homepage: str
  citation: str
  licence: str
  download: str

  @property
  def num_classes(self) -> int:
    """Number of classes, the ignored label not counted."""
    return len(self.classes)

  @property
  def ignore_label(self) -> int:
    """The label that neither the loss nor the scores look at: 255."""
    return IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Item:
  """Where one example lies on disk, before it is read."""

  id: str
  image: pathlib.Path
  label: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Example:
  """One example as it is going to be stored.

  Attributes:
    id: Unique within its split.
    image: The photo's file content, JPEG or PNG, as published.
    label: uint8 [h, w], classes 0..C-1 and 255.
    image_path: The photo's file, for error messages.
    label_path: The label's file, for error messages.
  """

  id: str
  image: bytes
  label: UInt8[np.ndarray, 'h w']
  image_path: str | pathlib.Path
  label_path: str | pathlib.Path
