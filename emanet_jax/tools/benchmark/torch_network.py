"""Networks in plain PyTorch, as practitioners write them: opponents.

The same layers, weights (by mmsegmentation's names), loss and update as ours,
with PyTorch's own convolutions, normalisation and optimizer.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from emanet_jax.models.backbones.resnet import block_dilations, stage_strides
from emanet_jax.tools.benchmark.torch_heads import HEADS
from emanet_jax.tools.benchmark.torch_layers import MOMENTUM, resize, wide


class _Bottleneck(nn.Module):
  def __init__(self, channels: int, planes: int, stride: int, dilation: int):
    super().__init__()
    features = 4 * planes
    self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(planes, momentum=MOMENTUM)
    self.conv2 = nn.Conv2d(
      planes, planes, 3, stride, dilation, dilation, bias=False
    )
    self.bn2 = nn.BatchNorm2d(planes, momentum=MOMENTUM)
    self.conv3 = nn.Conv2d(planes, features, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(features, momentum=MOMENTUM)
    self.downsample = None
    if stride != 1 or channels != features:
      self.downsample = nn.Sequential(
        nn.Conv2d(channels, features, 1, stride, bias=False),
        nn.BatchNorm2d(features, momentum=MOMENTUM),
      )

  def forward(self, x):
    y = functional.relu(self.bn1(self.conv1(x)))
    y = functional.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    return functional.relu(y + (self.downsample(x) if self.downsample else x))


class _ResNet(nn.Module):
  """An image to the features of four stages, with our default stem and grid.

  Attributes:
    remat: Whether training computes each bottleneck anew for its gradient;
      its running statistics then move twice a step, as PyTorch's do.
  """

  remat = False

  def __init__(self, stage_sizes: Sequence[int], output_stride: int):
    super().__init__()
    stem, channels = [], 3
    for features, stride in ((64, 2), (64, 1), (128, 1)):
      stem += [
        nn.Conv2d(channels, features, 3, stride, 1, bias=False),
        nn.BatchNorm2d(features, momentum=MOMENTUM),
        nn.ReLU(inplace=True),
      ]
      channels = features
    self.stem = nn.Sequential(*stem)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    for stage, (stride, dilation) in enumerate(stage_strides(output_stride)):
      blocks, planes = [], 64 * 2**stage
      grid = (1, 2, 4) if stage == 3 else (1,) * stage_sizes[stage]
      for rate in block_dilations(stage_sizes[stage], dilation, grid):
        blocks.append(_Bottleneck(channels, planes, stride, rate))
        channels, stride = 4 * planes, 1
      self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))

  def forward(self, image):
    x, features = self.maxpool(self.stem(image)), []
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      for block in stage:
        if self.remat and self.training:
          x = checkpoint(
            block, x, use_reentrant=False, preserve_rng_state=False
          )
        else:
          x = block(x)
      features.append(x)
    return features


class Network(nn.Module):
  """A network as `create_model` makes it of the default configuration.

  Args:
    stage_sizes: Bottlenecks in each of the four stages.
    num_classes: Classes predicted.
    head: One of `torch_heads.HEADS`.
    output_stride: Of the backbone.
    dropout_rate: Share of whole channels dropped in training.
  """

  def __init__(
    self,
    stage_sizes: Sequence[int],
    num_classes: int,
    head: str = 'ema',
    output_stride: int = 8,
    dropout_rate: float = 0.1,
  ):
    super().__init__()
    self.backbone = _ResNet(stage_sizes, output_stride)
    self.decode_head = HEADS[head](num_classes, dropout_rate)

  def forward(self, image):
    """Normalised [b, 3, h, w] → float32 logits [b, classes, h, w].

    In training a tuple: those, and what has a loss of its own besides.
    """
    logits = self.decode_head(self.backbone(image))
    if self.training:
      return tuple(resize(wide(x), image.shape[2:]) for x in logits)
    return resize(wide(logits[0]), image.shape[2:])


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
  """Cross entropy of all outputs over all pixels, ignored ones as zero."""
  total = sum(
    functional.cross_entropy(x, label, ignore_index=255, reduction='sum')
    for x in logits
  )
  return total / label.numel()
