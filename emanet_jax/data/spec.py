"""What a data set is to the rest of the program; needs no data library."""

import dataclasses
from collections.abc import Mapping
from typing import Any

IGNORE_LABEL = 255  # In every data set, after preparation.


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """What the rest of the program needs to know about a data set.

  Attributes:
    name: The name in configs, which is also the name of the file.
    classes: Class names; the position is the label.
    palette: One (red, green, blue) in 0..255 a class, for pictures.
    num_examples: Split name to the published number of images; of a user's own,
      which nobody published, to the number that was prepared.
    homepage: Where the data set is described.
    citation: BibTeX.
    licence: Terms in a sentence, for whoever wants to use the photos.
    download: What to get and which folders the manual directory then holds;
      '' when the images are generated and nothing is needed.
    checksums: Published archives and files that are used where they lie; path
      in the manual directory → 'md5:…', 'sha1:…', or '' when none is known.
    unlabelled: Splits without labels, such as those that the publisher keeps:
      all of every label is 255.
  """

  name: str
  classes: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  num_examples: Mapping[str, int]
  homepage: str
  citation: str
  licence: str
  download: str
  checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
  unlabelled: tuple[str, ...] = ()

  @classmethod
  def from_json(cls, content: Mapping[str, Any]) -> 'DatasetSpec':
    """Inverse of `dataclasses.asdict` and a passage through JSON."""
    tuples = {
      'classes': tuple(content['classes']),
      'palette': tuple(tuple(color) for color in content['palette']),
      'unlabelled': tuple(content['unlabelled']),
    }
    return cls(**{**content, **tuples})

  @property
  def num_classes(self) -> int:
    """Number of classes, the ignored label not counted."""
    return len(self.classes)

  @property
  def ignore_label(self) -> int:
    """The label that neither the loss nor the scores look at: 255."""
    return IGNORE_LABEL
