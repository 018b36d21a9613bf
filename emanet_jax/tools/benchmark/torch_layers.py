"""Layers that PyTorch's networks have in common."""

import torch
from torch import nn
from torch.nn import functional

MOMENTUM = 3e-4  # of running statistics, in PyTorch's sense


class ConvNorm(nn.Module):
  """Convolution, normalisation, ReLU."""

  def __init__(
    self, channels: int, features: int, size: int = 3, dilation: int = 1
  ):
    super().__init__()
    self.conv = nn.Conv2d(
      channels,
      features,
      size,
      padding=dilation * (size // 2),
      dilation=dilation,
      bias=False,
    )
    self.bn = nn.BatchNorm2d(features, momentum=MOMENTUM)

  def forward(self, x):
    return functional.relu(self.bn(self.conv(x)))


def wide(x):
  """In float32 or wider."""
  return x if x.dtype == torch.float64 else x.float()


def resize(x, size, align_corners: bool = True):
  """Bilinear interpolation to a height and width."""
  return functional.interpolate(
    x, size, mode='bilinear', align_corners=align_corners
  )
