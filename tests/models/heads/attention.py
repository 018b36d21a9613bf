"""Weights of attention, as heads sow them, in NumPy."""

import numpy as np
from flax import traverse_util

from emanet_jax.models.outputs import ATTENTION


def products(sown) -> dict[str, np.ndarray]:
  """W [b, n, n] of each attention, by name: of all times it was applied."""
  leaves = traverse_util.flatten_dict(sown.get(ATTENTION, {}))
  return {path[-1]: _product(applied) for path, applied in leaves.items()}


def _product(applied):
  total = None
  for factors in applied:
    one = np.asarray(factors[0], np.float64)
    for factor in factors[1:]:
      one = one @ np.asarray(factor, np.float64)
    total = one if total is None else one @ total
  return total
