"""A tensor in PyTorch's layout and in ours, by its place in our network."""

import math
from collections.abc import Sequence

import numpy as np


def to_flax(value: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
  """PyTorch's tensor in our layout, float32; one that is odd stays as it is."""
  value = np.asarray(value, np.float32)
  leaf = path[-1]
  if leaf == 'mu' and value.ndim == 3 and value.shape[0] == 1:
    value = value[0].T  # [1, C, K] → [K, C]
  elif 'layer_norm' in path and value.shape[1:] == (1, 1):
    value = value.ravel()
  elif 'offsets' in path and len(value) == math.isqrt(len(value)) ** 2:
    side = math.isqrt(len(value))  # [rows · cols, C, 1, 1] → [rows, cols, C]
    value = value.reshape(side, side, -1)
  elif value.ndim == 4:  # [out, in, h, w] → [h, w, in, out]
    value = value.transpose(2, 3, 1, 0)
  elif value.ndim == 2 and leaf == 'kernel':  # of a linear layer
    value = value.T[None, None] if path[-2].endswith('fc') else value.T
  return value.copy()


def to_torch(value: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
  """Our tensor in PyTorch's layout; the inverse of `to_flax`."""
  value = np.asarray(value)
  if path[-1] == 'mu':
    value = value.T[None]
  elif 'layer_norm' in path:
    value = value[:, None, None]
  elif 'offsets' in path:
    value = value.reshape(-1, value.shape[-1], 1, 1)
  elif value.ndim == 4:
    value = value.transpose(3, 2, 0, 1)
    if path[-2].endswith('fc'):
      value = value[:, :, 0, 0]
  elif value.ndim == 2 and path[-1] == 'kernel':
    value = value.T
  return np.array(value, order='C')


def reorder(kernel: np.ndarray, order: Sequence[int]) -> np.ndarray:
  """A kernel [k, k, c, f] that reads parts of c in another order."""
  if kernel.ndim != 4 or kernel.shape[2] % len(order):
    return kernel  # refused for its shape
  parts = np.split(kernel, len(order), axis=2)
  return np.concatenate([parts[i] for i in order], axis=2)
