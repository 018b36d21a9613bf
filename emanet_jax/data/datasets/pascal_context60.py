"""PASCAL Context with the background as a class: 60 classes."""

import dataclasses

from emanet_jax.data.datasets import pascal_context
from emanet_jax.data.reading.palette import voc_color

_CLASSES = tuple(pascal_context.NAMES.values())

SPEC = dataclasses.replace(
  pascal_context.SPEC,
  name='pascal_context60',
  classes=_CLASSES,
  palette=tuple(voc_color(label) for label in range(len(_CLASSES))),
)


class Builder(pascal_context.Builder, skip_registration=True):
  """The same files; what no class covers is class 0."""

  name = 'pascal_context60'
  SPEC = SPEC
