"""The network in plain PyTorch, as a practitioner writes it: an opponent.

The same layers, weights (by the authors' names), loss and update as ours, with
PyTorch's own convolutions, normalisation and optimizer.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

_MOMENTUM = 3e-4  # of running statistics, in PyTorch's sense


class _ConvNorm(nn.Module):
  """Convolution, normalisation, ReLU."""

  def __init__(self, channels: int, features: int):
    super().__init__()
    self.conv = nn.Conv2d(channels, features, 3, padding=1, bias=False)
    self.bn = nn.BatchNorm2d(features, momentum=_MOMENTUM)

  def forward(self, x):
    return functional.relu(self.bn(self.conv(x)))


class _Bottleneck(nn.Module):
  def __init__(self, channels: int, planes: int, stride: int, dilation: int):
    super().__init__()
    features = 4 * planes
    self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(planes, momentum=_MOMENTUM)
    self.conv2 = nn.Conv2d(
      planes, planes, 3, stride, dilation, dilation, bias=False
    )
    self.bn2 = nn.BatchNorm2d(planes, momentum=_MOMENTUM)
    self.conv3 = nn.Conv2d(planes, features, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(features, momentum=_MOMENTUM)
    self.downsample = None
    if stride != 1 or channels != features:
      self.downsample = nn.Sequential(
        nn.Conv2d(channels, features, 1, stride, bias=False),
        nn.BatchNorm2d(features, momentum=_MOMENTUM),
      )

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return functional.relu(y + (self.downsample(x) if self.downsample else x))


def _wide(x):
  return x if x.dtype == torch.float64 else x.float()


class EMAUnit(nn.Module):
  """1×1, EM attention, ReLU, 1×1 and normalisation, + input, ReLU."""

  def __init__(self, channels: int, num_bases: int = 64, num_stages: int = 3):
    super().__init__()
    self.num_stages = num_stages
    bases = functional.normalize(torch.randn(1, channels, num_bases), dim=1)
    self.register_buffer('mu', bases)
    self.conv1 = nn.Conv2d(channels, channels, 1)
    self.conv2 = nn.Sequential(
      nn.Conv2d(channels, channels, 1, bias=False),
      nn.BatchNorm2d(channels, momentum=_MOMENTUM),
    )

  def forward(self, x):
    y = self.conv1(x)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
      pixels = _wide(y).flatten(2)  # b c n
      mu = self.mu.expand(len(x), -1, -1)  # b c k
      for _ in range(self.num_stages):
        z = torch.softmax(pixels.transpose(1, 2) @ mu, dim=2)  # b n k
        mu = pixels @ (z / (1e-6 + z.sum(1, keepdim=True)))
        mu = mu / (1e-6 + mu.norm(dim=1, keepdim=True))
      if self.training:
        self.mu.copy_(0.9 * self.mu + 0.1 * mu.mean(0, keepdim=True))
      y = (mu @ z.transpose(1, 2)).view_as(y).to(y.dtype)
    return functional.relu(self.conv2(functional.relu(y)) + x)


class Network(nn.Module):
  """EMANet, as `create_model` makes it of the default configuration.

  Args:
    stage_sizes: Bottlenecks in each of the four stages.
    num_classes: Classes predicted.
    dropout_rate: Share of whole channels dropped in training.

  Attributes:
    remat: Whether training computes each bottleneck anew for its gradient;
      its running statistics then move twice a step, as PyTorch's do.
  """

  remat = False

  def __init__(
    self,
    stage_sizes: Sequence[int],
    num_classes: int,
    dropout_rate: float = 0.1,
  ):
    super().__init__()
    stem, channels = [], 3
    for features, stride in ((64, 2), (64, 1), (128, 1)):
      stem += [
        nn.Conv2d(channels, features, 3, stride, 1, bias=False),
        nn.BatchNorm2d(features, momentum=_MOMENTUM),
        nn.ReLU(inplace=True),
      ]
      channels = features
    self.extractor = nn.ModuleList(
      [nn.Sequential(*stem[:-2]), stem[-2], stem[-1], nn.MaxPool2d(3, 2, 1)]
    )
    strides = ((1, 1), (2, 1), (1, 2), (1, 4))
    for stage, (stride, dilation) in enumerate(strides):
      grid = (1, 2, 4) if stage == 3 else (1,) * stage_sizes[stage]
      blocks, planes = [], 64 * 2**stage
      for i in range(stage_sizes[stage]):
        blocks.append(
          _Bottleneck(channels, planes, stride, dilation * grid[i])
          if i
          else _Bottleneck(channels, planes, stride, max(dilation // 2, 1))
        )
        channels, stride = 4 * planes, 1
      self.extractor.append(nn.Sequential(*blocks))
    self.fc0 = _ConvNorm(channels, 512)
    self.emau = EMAUnit(512)
    self.fc1 = nn.Sequential(_ConvNorm(512, 256), nn.Dropout2d(dropout_rate))
    self.fc2 = nn.Conv2d(256, num_classes, 1)

  def forward(self, image):
    """Normalised [b, 3, h, w] → float32 logits [b, classes, h, w]."""
    x = image
    for module in self.extractor[:4]:  # the stem
      x = module(x)
    for stage in self.extractor[4:]:
      for block in stage:
        if self.remat and self.training:
          x = checkpoint(
            block, x, use_reentrant=False, preserve_rng_state=False
          )
        else:
          x = block(x)
    x = _wide(self.fc2(self.fc1(self.emau(self.fc0(x)))))
    return functional.interpolate(
      x, image.shape[2:], mode='bilinear', align_corners=True
    )


def create_optimizer(
  network: nn.Module, learning_rate: float
) -> torch.optim.SGD:
  """The authors' SGD: kernels decay, biases learn twice as fast."""
  names = dict(network.named_parameters())
  kernels = [v for v in names.values() if v.ndim > 1]
  biases = [v for k, v in names.items() if k.endswith('bias')]
  scales = [v for k, v in names.items() if v.ndim == 1 and k[-4:] != 'bias']
  return torch.optim.SGD(
    [
      {'params': kernels, 'weight_decay': 1e-4},
      {'params': biases, 'lr': 2 * learning_rate},
      {'params': scales},
    ],
    lr=learning_rate,
    momentum=0.9,
  )


def loss_fn(logits, label):
  """Cross entropy over all pixels, ignored ones counted as zero."""
  total = functional.cross_entropy(
    logits, label, ignore_index=255, reduction='sum'
  )
  return total / label.numel()
