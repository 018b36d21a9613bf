"""Data sets found by name: one file here is one data set.

A new benchmark is one new file whose name is the data set's name and which
holds a class `Builder` (see `SegmentationBuilder`); nothing else changes.
"""

import importlib
import pkgutil

from emanet_jax.data.reading import builder
from emanet_jax.errors import UserError


def known_datasets() -> list[str]:
  """Returns the sorted names that `get_dataset` accepts."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get_dataset(name: str) -> type[builder.SegmentationBuilder]:
  """Finds a data set by name; only its own file is imported.

  Args:
    name: A data set's name, which is the name of its file.

  Returns:
    Its TFDS builder class; `.SPEC` tells classes, palette and counts.

  Raises:
    UserError: No file has this name; the known names are listed.
  """
  if name not in known_datasets():
    raise UserError(
      f'Unknown data set {name!r}: config.data.name must be one of '
      f'{", ".join(known_datasets())}. A new data set is one new file in '
      'emanet_jax/data/datasets.'
    )
  return importlib.import_module(f'{__name__}.{name}').Builder
