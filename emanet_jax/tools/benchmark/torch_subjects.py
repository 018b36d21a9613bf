"""What contests measure of PyTorch, of the same names as in `subjects`.

Every function takes, besides, `layout`: 'contiguous' or 'channels_last'; and
`compiled`: whether through torch.compile. Under bfloat16 the network runs in
autocast, as practitioners run it.
"""

from collections.abc import Callable

import numpy as np
import torch

from emanet_jax.models.backbones.resnet import STAGE_SIZES
from emanet_jax.models.segmenter import MEAN, STD
from emanet_jax.tools.benchmark import torch_heads, torch_network
from emanet_jax.tools.benchmark.contest import Subject
from emanet_jax.tools.benchmark.subjects import CLASSES, LEARNING_RATE


def forward(
  depth: int,
  batch: int,
  size: int,
  dtype: str,
  layout: str,
  compiled: bool,
  head: str = 'ema',
  output_stride: int = 8,
) -> Subject:
  """The network's evaluation: normalised images to logits at their size."""
  device = _device()
  network = _network(depth, head, output_stride, device, layout).eval()
  image = _normal((batch, 3, size, size), device, layout)
  run = torch.compile(network) if compiled else network

  def once():
    with torch.inference_mode(), _autocast(device, dtype):
      run(image)

  return _subject(once, device)


def train(
  depth: int,
  batch: int,
  size: int,
  dtype: str,
  remat: bool,
  layout: str,
  compiled: bool,
  head: str = 'ema',
  output_stride: int = 8,
) -> Subject:
  """A training step, on a batch that is there already."""
  device = _device()
  network = _network(depth, head, output_stride, device, layout).train()
  network.backbone.remat = remat
  optimizer = torch_network.create_optimizer(network, LEARNING_RATE)
  image = _normal((batch, 3, size, size), device, layout)
  label = torch.randint(0, CLASSES, (batch, size, size), device=device)
  run = torch.compile(network) if compiled else network

  def once():
    optimizer.zero_grad(set_to_none=True)
    with _autocast(device, dtype):
      loss = torch_network.loss_fn(run(image), label)
    loss.backward()
    optimizer.step()

  return _subject(once, device)


def em(
  batch: int, size: int, channels: int, dtype: str, layout: str, compiled: bool
) -> Subject:
  """The EM attention unit's evaluation, on features [b, c, size, size]."""
  device = _device()
  unit = torch_heads.EMAUnit(channels).to(device).eval()
  unit = unit.to(memory_format=_FORMATS[layout])
  x = _normal((batch, channels, size, size), device, layout)
  x = x.to(getattr(torch, dtype))
  run = torch.compile(unit) if compiled else unit

  def once():
    with torch.inference_mode(), _autocast(device, dtype):
      run(x)

  return _subject(once, device)


def predictor(depth: int, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
  """A function from RGB images, uint8 [b, h, w, 3], to classes [b, h, w]."""
  device = _device()
  network = _network(depth, 'ema', 8, device, 'channels_last').eval()
  torch.backends.cudnn.benchmark = False  # every photo has another size
  mean, std = (255 * torch.tensor(x, device=device) for x in (MEAN, STD))

  def predict(image):
    x = (torch.from_numpy(image).to(device).float() - mean) / std
    x = x.permute(0, 3, 1, 2)
    with torch.inference_mode(), _autocast(device, dtype):
      return network(x).argmax(1).to(torch.uint8).cpu().numpy()

  return predict


_FORMATS = {
  'contiguous': torch.contiguous_format,
  'channels_last': torch.channels_last,
}


def _device() -> torch.device:
  # float32 means float32, as with us.
  torch.backends.cudnn.allow_tf32 = False
  torch.backends.cuda.matmul.allow_tf32 = False
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _network(depth, head, output_stride, device, layout):
  torch.manual_seed(0)
  torch.backends.cudnn.benchmark = True
  network = torch_network.Network(
    STAGE_SIZES[depth], CLASSES, head, output_stride
  )
  return network.to(device, memory_format=_FORMATS[layout])


def _normal(shape, device, layout) -> torch.Tensor:
  x = torch.randn(shape, device=device)
  return x.to(memory_format=_FORMATS[layout])


def _autocast(device, dtype):
  enabled = dtype == 'bfloat16'
  return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _subject(once: Callable, device: torch.device) -> Subject:
  about = {'framework': f'PyTorch {torch.__version__}'}
  if device.type == 'cpu':
    about['device'] = f'cpu, {torch.get_num_threads()} threads'
    return Subject(once, about)
  about['device'] = torch.cuda.get_device_name(device)

  def step():
    once()
    torch.cuda.synchronize(device)

  return Subject(step, about, lambda: torch.cuda.max_memory_allocated(device))
