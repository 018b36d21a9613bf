"""The weights and inputs behind tests/golden, from names, shapes and seeds."""

import json
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def golden(name: str) -> dict[str, np.ndarray]:
  with np.load(GOLDEN / f'{name}.npz') as file:
    return dict(file)


def shapes(model: str) -> dict[str, list[int]]:
  """PyTorch name → shape, of all tensors of a published model."""
  return json.loads((GOLDEN / 'state_dict_shapes.json').read_text())[model]


def state_dict(model: str, seed: int) -> dict[str, np.ndarray]:
  """All tensors of a model in tests/golden/state_dict_shapes.json."""
  return {
    name: weight(name, tuple(shape), seed)
    for name, shape in shapes(model).items()
    if not name.endswith('num_batches_tracked')
  }


def rival_shapes(model: str) -> dict[str, list[int]]:
  """Likewise, of the heads of a network in tests/golden/rivals, or a block."""
  file = GOLDEN / 'rivals' / 'head_shapes.json'
  return json.loads(file.read_text())[model]


def weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  """One tensor of a PyTorch state dict, float32."""
  leaf = name.rsplit('.', 1)[-1]
  key = f'{name}.mu' if leaf == 'bases' else name
  rng = np.random.default_rng([zlib.crc32(key.encode()), seed])
  normal = np.asarray(rng.standard_normal(shape), np.float32)
  match leaf, len(shape):
    case 'running_mean' | 'bias' | 'in_proj_bias', _:
      value = 0.1 * normal
    case 'running_var', _:
      value = np.exp(0.1 * normal)
    case 'mu' | 'bases', _:
      length = np.sqrt((normal * normal).sum(1, keepdims=True))
      value = normal / (1e-6 + length)
    case 'weight', 4:
      value = normal * np.float32(np.sqrt(1 / np.prod(shape[1:])))
    case 'weight', 1:
      value = (0.2 if '.bn3.' in name else 1.0) * (1 + 0.1 * normal)
    case 'weight' | 'in_proj_weight', 2:
      value = normal * np.float32(np.sqrt(1 / shape[1]))
    case 'weight', 3:  # of a layer norm
      value = 1 + 0.1 * normal
    case 'scale', 0:  # of an attention's result
      value = 0.5 * (1 + 0.1 * normal)
    case 'codewords', 2:
      value = 0.1 * normal
    case 'scale', 1:  # of distances from code words
      value = -0.05 * (1 + 0.1 * normal)
  return np.array(value, np.float32, order='C')


def image(seed: int, batch: int, height: int, width: int) -> np.ndarray:
  """A normalised input: smooth blobs and noise, float32 NCHW."""
  rng = np.random.default_rng([7, seed])
  small = rng.standard_normal((batch, 3, 9, 9)).astype(np.float32)
  (y0, fy), (x0, fx) = _cells(height), _cells(width)
  fy, fx = fy[:, None], fx[None]
  smooth = sum(
    small[:, :, y0 + i][:, :, :, x0 + j] * wy * wx
    for i, wy in ((0, 1 - fy), (1, fy))
    for j, wx in ((0, 1 - fx), (1, fx))
  )
  noise = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
  return smooth.astype(np.float32) + 0.1 * noise


def _cells(length: int) -> tuple[np.ndarray, np.ndarray]:
  position = np.arange(length, dtype=np.float64) * (8 / max(length - 1, 1))
  low = np.minimum(position.astype(int), 7)
  return low, position - low


def label(
  seed: int, batch: int, height: int, width: int, classes: int = 21
) -> np.ndarray:
  """A label map of 6×6 cells with 255 in about 5%, int64 [b, h, w]."""
  rng = np.random.default_rng([11, seed])
  small = rng.integers(0, classes, (batch, 1, 6, 6)).astype(np.float32)
  rows = np.floor(np.arange(height) * (6 / height)).astype(int)
  cols = np.floor(np.arange(width) * (6 / width)).astype(int)
  value = small[:, 0][:, rows][:, :, cols].astype(np.int64)
  value[rng.random(value.shape) < 0.05] = 255
  return value
