"""Looking at PNG files."""

import cv2
import numpy as np
from PIL import Image


def read(path):
  with Image.open(path) as image:
    image.load()
    return np.asarray(image.convert('RGB'))


def where(picture, color):
  return (picture == np.asarray(color, np.uint8)).all(axis=-1)


def panels(page, photo, columns):
  """Pictures of a one-row page, which begins with the photo, at its size."""
  height, width = photo.shape[:2]
  side = round(200 * 1.9)
  top = page.shape[0] - round(200 * 0.15) - round(side * height / width)
  found = []
  for i in range(columns):
    left = round(200 * (0.15 + i * (1.9 + 0.06)))
    cut = page[top : top + round(side * height / width), left : left + side]
    found.append(cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA))
  return found
