"""Publishers' label values to class indices, by one lookup."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import UInt8

from emanet_jax.data.spec import IGNORE_LABEL
from emanet_jax.errors import UserError

_UNKNOWN = 254  # no class of any data set

Table = UInt8[np.ndarray, '256']


def make_table(classes: Mapping[int, int], void: Iterable[int]) -> Table:
  """Returns a table for `translate`.

  Args:
    classes: Publisher's value to class index.
    void: Publisher's values that mean no class; they become 255.
  """
  table = np.full(256, _UNKNOWN, np.uint8)
  table[list(void)] = IGNORE_LABEL
  table[list(classes.keys())] = list(classes.values())
  return table


def translate(
  label: UInt8[np.ndarray, 'h w'], table: Table, where: str
) -> UInt8[np.ndarray, 'h w']:
  """Returns a label in class indices and 255.

  Args:
    label: The publisher's values.
    table: From `make_table`.
    where: The label's place, for the message.

  Raises:
    UserError: A value is none of the publisher's.
  """
  translated = table[label]
  unknown = translated == _UNKNOWN
  if unknown.any():
    raise UserError(
      f'{where} holds the value(s) {np.unique(label[unknown]).tolist()}, which '
      'mean nothing in the published labels. Take the label file as published, '
      'not one that was converted for another program.'
    )
  return translated
