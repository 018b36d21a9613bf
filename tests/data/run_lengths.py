"""Masks as run lengths, plain and compressed."""

import numpy as np


def run_lengths(mask):
  """Runs of 0 and 1 in turn, down the columns."""
  flat = mask.T.ravel()
  bounds = (np.flatnonzero(np.diff(flat)) + 1).tolist()
  runs = np.diff([0, *bounds, flat.size]).tolist()
  return [0, *runs] if flat[0] else runs


def encode_rle(mask):
  """Compressed runs of a mask, number by number."""
  runs = run_lengths(mask)
  text = ''
  for i, run in enumerate(runs):
    number = run - runs[i - 2] if i > 2 else run
    while True:
      digit, number = number & 31, number >> 5
      more = number != (-1 if digit & 16 else 0)
      text += chr(48 + digit + 32 * more)
      if not more:
        break
  return {'counts': text, 'size': list(mask.shape)}
