"""Colours for classes whose publisher gives none."""

from collections.abc import Sequence

import numpy as np

_APART = 8  # levels between two colours, in one channel at least


def voc_color(label: int) -> tuple[int, int, int]:
  """Returns VOC's colour of a label: its bits, dealt to R, G, B in turn."""
  color = [0, 0, 0]
  for bit in range(8):
    for channel in range(3):
      color[channel] |= (label >> (3 * (bit // 3) + channel) & 1) << (
        7 - bit // 3
      )
  return tuple(color)


def visible_palette(
  colors: Sequence[tuple[int, int, int]], count: int
) -> tuple[tuple[int, int, int], ...]:
  """Colours of classes for pictures: their own where the eye tells them apart.

  Args:
    colors: Of masks, one a class, or none. Where a list gives indices as
      colours, (1, 1, 1), (2, 2, 2), …, all are as good as black.
    count: Of classes.
  """
  values = np.array(colors, int).reshape(-1, 1, 3)
  apart = np.abs(values - values.swapaxes(0, 1)).max(axis=-1)
  np.fill_diagonal(apart, _APART)
  if len(colors) and apart.min() >= _APART:
    return tuple(colors)
  return tuple(voc_color(label) for label in range(count))
