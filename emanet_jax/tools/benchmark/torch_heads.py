"""PyTorch's heads with our defaults, as mmsegmentation builds them.

Each takes the features of four stages, and returns logits at the last one's
size (uper: the first one's); in training those that have a loss of their own
besides, after them. EM attention, which is not like mmsegmentation's, is the
authors'.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from emanet_jax.tools.benchmark.torch_layers import (
  MOMENTUM,
  ConvNorm,
  resize,
  wide,
)

_CHANNELS = (256, 512, 1024, 2048)  # of the stages
_GRIDS = (1, 2, 3, 6)


class _Head(nn.Module):
  def __init__(self, channels: int, num_classes: int, dropout_rate: float):
    super().__init__()
    self.dropout = nn.Dropout2d(dropout_rate)
    self.conv_seg = nn.Conv2d(channels, num_classes, 1)

  def classify(self, x):
    return self.conv_seg(self.dropout(x))


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
      nn.BatchNorm2d(channels, momentum=MOMENTUM),
    )

  def forward(self, x):
    y = self.conv1(x)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
      pixels = wide(y).flatten(2)  # b c n
      mu = self.mu.expand(len(x), -1, -1)  # b c k
      for _ in range(self.num_stages):
        z = torch.softmax(pixels.transpose(1, 2) @ mu, dim=2)  # b n k
        mu = pixels @ (z / (1e-6 + z.sum(1, keepdim=True)))
        mu = mu / (1e-6 + mu.norm(dim=1, keepdim=True))
      if self.training:
        self.mu.copy_(0.9 * self.mu + 0.1 * mu.mean(0, keepdim=True))
      y = (mu @ z.transpose(1, 2)).view_as(y).to(y.dtype)
    return functional.relu(self.conv2(functional.relu(y)) + x)


class _EMA(nn.Module):
  """With the authors' names."""

  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__()
    self.fc0 = ConvNorm(_CHANNELS[-1], 512)
    self.emau = EMAUnit(512)
    self.fc1 = nn.Sequential(ConvNorm(512, 256), nn.Dropout2d(dropout_rate))
    self.fc2 = nn.Conv2d(256, num_classes, 1)

  def forward(self, features):
    return [self.fc2(self.fc1(self.emau(self.fc0(features[-1]))))]


class _PSP(_Head):
  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__(512, num_classes, dropout_rate)
    self.psp_modules = _pyramid(512)
    self.bottleneck = ConvNorm(_CHANNELS[-1] + len(_GRIDS) * 512, 512)

  def forward(self, features):
    x = _with_pyramid(self.psp_modules, features[-1], align_corners=True)
    return [self.classify(self.bottleneck(x))]


def _pyramid(channels: int) -> nn.ModuleList:
  return nn.ModuleList(
    nn.Sequential(
      nn.AdaptiveAvgPool2d(cells), ConvNorm(_CHANNELS[-1], channels, 1)
    )
    for cells in _GRIDS
  )


def _with_pyramid(pyramid, x, align_corners):
  branches = [resize(pool(x), x.shape[2:], align_corners) for pool in pyramid]
  return torch.cat([x, *branches], dim=1)


class _DeepLabV3(_Head):
  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__(256, num_classes, dropout_rate)
    self.image_pool = nn.Sequential(
      nn.AdaptiveAvgPool2d(1), ConvNorm(_CHANNELS[-1], 256, 1)
    )
    self.aspp_modules = nn.ModuleList(
      ConvNorm(_CHANNELS[-1], 256, 1 if rate == 1 else 3, rate)
      for rate in (1, 12, 24, 36)
    )
    self.bottleneck = ConvNorm(5 * 256, 256, 1)

  def forward(self, features):
    x = features[-1]
    branches = [resize(self.image_pool(x), x.shape[2:])]
    branches += [branch(x) for branch in self.aspp_modules]
    return [self.classify(self.bottleneck(torch.cat(branches, dim=1)))]


class _NonLocalBlock(nn.Module):
  def __init__(self, channels: int, inner_channels: int):
    super().__init__()
    for name in ('theta', 'phi', 'g'):
      conv = nn.Conv2d(channels, inner_channels, 1)
      self.add_module(name, nn.ModuleDict({'conv': conv}))
    self.conv_out = nn.ModuleDict(
      {
        'conv': nn.Conv2d(inner_channels, channels, 1, bias=False),
        'bn': nn.BatchNorm2d(channels, momentum=MOMENTUM),
      }
    )

  def forward(self, x):
    theta, phi, g = (
      module['conv'](x).flatten(2) for module in (self.theta, self.phi, self.g)
    )
    affinity = theta.transpose(1, 2) @ phi / math.sqrt(theta.shape[1])
    y = g @ torch.softmax(affinity, dim=2).transpose(1, 2)
    y = self.conv_out['conv'](y.unflatten(2, x.shape[2:]))
    return x + self.conv_out['bn'](y)


class _NonLocal(_Head):
  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__(512, num_classes, dropout_rate)
    self.convs = nn.ModuleList(
      [ConvNorm(_CHANNELS[-1], 512), ConvNorm(512, 512)]
    )
    self.nl_block = _NonLocalBlock(512, 256)
    self.conv_cat = ConvNorm(_CHANNELS[-1] + 512, 512)

  def forward(self, features):
    x = self.convs[1](self.nl_block(self.convs[0](features[-1])))
    x = self.conv_cat(torch.cat([features[-1], x], dim=1))
    return [self.classify(x)]


class _Scale(nn.Module):
  def __init__(self):
    super().__init__()
    self.scale = nn.Parameter(torch.zeros(()))

  def forward(self, x):
    return self.scale * x


class _PositionAttention(nn.Module):
  def __init__(self, channels: int, inner_channels: int):
    super().__init__()
    self.query_project = nn.Conv2d(channels, inner_channels, 1)
    self.key_project = nn.Conv2d(channels, inner_channels, 1)
    self.value_project = nn.Conv2d(channels, channels, 1)
    self.gamma = _Scale()

  def forward(self, x):
    query = self.query_project(x).flatten(2)
    key = self.key_project(x).flatten(2)
    value = self.value_project(x).flatten(2)
    weights = torch.softmax(query.transpose(1, 2) @ key, dim=2)
    return self.gamma((value @ weights.transpose(1, 2)).view_as(x)) + x


class _ChannelAttention(nn.Module):
  def __init__(self):
    super().__init__()
    self.gamma = _Scale()

  def forward(self, x):
    pixels = x.flatten(2)
    energy = pixels @ pixels.transpose(1, 2)
    weights = torch.softmax(energy.amax(2, keepdim=True) - energy, dim=2)
    return self.gamma((weights @ pixels).view_as(x)) + x


class _DA(_Head):
  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__(512, num_classes, dropout_rate)
    for name in ('pam', 'cam'):
      self.add_module(f'{name}_in_conv', ConvNorm(_CHANNELS[-1], 512))
      self.add_module(f'{name}_out_conv', ConvNorm(512, 512))
      self.add_module(f'{name}_conv_seg', nn.Conv2d(512, num_classes, 1))
    self.pam = _PositionAttention(512, 64)
    self.cam = _ChannelAttention()

  def forward(self, features):
    pam = self.pam_out_conv(self.pam(self.pam_in_conv(features[-1])))
    cam = self.cam_out_conv(self.cam(self.cam_in_conv(features[-1])))
    logits = [self.classify(pam + cam)]
    if self.training:
      logits.append(self.pam_conv_seg(self.dropout(pam)))
      logits.append(self.cam_conv_seg(self.dropout(cam)))
    return logits


class _UPer(_Head):
  def __init__(self, num_classes: int, dropout_rate: float):
    super().__init__(512, num_classes, dropout_rate)
    self.psp_modules = _pyramid(512)
    self.bottleneck = ConvNorm(_CHANNELS[-1] + len(_GRIDS) * 512, 512)
    self.lateral_convs = nn.ModuleList(
      ConvNorm(channels, 512, 1) for channels in _CHANNELS[:-1]
    )
    self.fpn_convs = nn.ModuleList(ConvNorm(512, 512) for _ in _CHANNELS[:-1])
    self.fpn_bottleneck = ConvNorm(4 * 512, 512)

  def forward(self, features):
    x = _with_pyramid(self.psp_modules, features[-1], align_corners=False)
    x = self.bottleneck(x)
    levels, size = [x], features[0].shape[2:]
    for i in (2, 1, 0):
      finer = self.lateral_convs[i](features[i])
      x = finer + resize(x, finer.shape[2:], align_corners=False)
      levels.insert(0, self.fpn_convs[i](x))
    levels = [resize(x, size, align_corners=False) for x in levels]
    return [self.classify(self.fpn_bottleneck(torch.cat(levels, dim=1)))]


HEADS = {
  'ema': _EMA,
  'da': _DA,
  'deeplabv3': _DeepLabV3,
  'nonlocal': _NonLocal,
  'psp': _PSP,
  'uper': _UPer,
}
