"""What the authors' PyTorch input does for an example, to compare with.

Written anew from what their code computes: the whole photo is decoded, turned
into normalised float32, resized, padded, and only then cropped and mirrored.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from emanet_jax.data.input import transforms
from emanet_jax.data.input.transforms import Crop
from emanet_jax.data.spec import IGNORE_LABEL

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def decode(record: Mapping[str, bytes]) -> tuple[Any, Any]:
  """Decodes one example.

  Args:
    record: {'image', 'label'} as files' contents.

  Returns:
    float32 tensors [1, 3, h, w], normalised with ImageNet's mean and deviation,
    and [1, 1, h, w].
  """
  import torch

  def tensor(data: bytes, mode: str) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as image:
      return torch.FloatTensor(np.array(image.convert(mode)))

  image = tensor(record['image'], 'RGB') / 255
  image = (image - torch.tensor(_MEAN)) / torch.tensor(_STD)
  return image.permute(2, 0, 1)[None], tensor(record['label'], 'L')[None, None]


def cut(image: Any, label: Any, crop: Crop) -> tuple[Any, Any]:
  """Cuts a training crop.

  Args:
    image: From `decode`.
    label: From `decode`.
    crop: What to cut, not turned.

  Returns:
    float32 [3, s, s], 0 outside the photo; int64 [s, s], 255 outside.
  """
  from torch.nn import functional

  image = functional.interpolate(
    image, scale_factor=crop.scale, mode='bilinear', align_corners=True
  )
  label = functional.interpolate(label, scale_factor=crop.scale, mode='nearest')
  height, width = label.shape[2:]
  sides = (0, max(0, crop.size - width), 0, max(0, crop.size - height))
  if any(sides):
    image = functional.pad(image, sides)
    label = functional.pad(label, sides, value=IGNORE_LABEL)
  rows = slice(crop.top, crop.top + crop.size)
  columns = slice(crop.left, crop.left + crop.size)
  image, label = image[..., rows, columns], label[..., rows, columns]
  if crop.flip:
    image, label = image.flip(3), label.flip(3)
  return image[0], label[0, 0].long()


class _Examples:
  """The records as a DataLoader takes them: something with [] and len()."""

  def __init__(self, records: Sequence[Mapping[str, bytes]], **options: Any):
    self._records, self._options = records, options
    self._rng = np.random.default_rng(0)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> tuple[Any, Any]:
    image, label = decode(self._records[index])
    crop = transforms.draw(self._rng, *label.shape[2:], **self._options)
    return cut(image, label, crop)


def reader(
  records: Sequence[Mapping[str, bytes]], batch_size: int, **options: Any
) -> Callable[[float], int]:
  """A function that reads batches through a DataLoader for some seconds.

  It runs in this process, which spares it what its workers would add: copies
  from one process to another.

  Args:
    records: {'image', 'label'} as files' contents, random access.
    batch_size: Examples of a batch.
    **options: Of `transforms.draw`.

  Returns:
    Seconds → number of images read.

  Raises:
    ImportError: PyTorch is not installed.
  """
  import torch

  torch.set_num_threads(1)  # as in a worker
  loader = torch.utils.data.DataLoader(
    _Examples(records, **options), batch_size, shuffle=True, drop_last=True
  )

  def read(seconds: float) -> int:
    end, count = time.perf_counter() + seconds, 0
    for image, _ in loader:
      count += len(image)
      if time.perf_counter() > end:
        break
    return count

  return read
