"""Augmentations of photos before the random crop, one file each.

An augmentation file holds `create(*, option=default, …) -> apply`, with

  apply(image, label, rng) -> (image, label)

where image is uint8 RGB [h, w, 3] and label uint8 [h, w], 255 = ignored; of any
size, which stays; neither is written to. All randomness is drawn from rng,
a NumPy generator of the example's own. `create` returns None where its options
switch it off, as their defaults do: each file has a section of its name in
`config.data.augmentations`, so that a default that did anything would change
every run. They are applied in the order of their names.
"""

from collections.abc import Mapping
from typing import Any

from emanet_jax import parts


def create_augmentations(
  sections: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """Those that are switched on, by name, in the order in which they apply.

  Args:
    sections: Options by name of the augmentation.

  Raises:
    UserError: An unknown name or option, or an impossible value.
  """
  created = {
    name: parts.AUGMENTATIONS.create(name, **sections[name])
    for name in sorted(sections)
  }
  return {name: apply for name, apply in created.items() if apply is not None}
