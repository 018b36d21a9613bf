"""Networks that files of PyTorch hold, and how ours is configured alike."""

from tests.models.pytorch.torch_names import (
  CLASSIC,
  V1C,
  authors_shapes,
  imagenet_shapes,
  mit_shapes,
  mmseg_shapes,
  torchvision_shapes,
)

SMALL = {'stage_sizes': (1, 2, 1, 4), 'width': 8, 'stem': (4, 5, 7)}
SMALL_HEAD = {'classes': 3, 'channels': 12, 'bases': 6, 'out_channels': 10}
MMSEG = {
  'align_corners': False,
  'norm_momentum': 0.9,
  'backbone.stem_widths': (32, 32, 64),
  'backbone.multi_grid': (1, 1, 1),
  'head.concat_input': True,
  'head.renormalize': True,
}
TORCHVISION = {
  'align_corners': False,
  'norm_momentum': 0.9,
  'backbone.stem_widths': (64,),
  'backbone.multi_grid': (1, 1, 1),
}
SMALL_OPTIONS = {
  'backbone.stage_sizes': (1, 2, 1, 4),
  'backbone.multi_grid': (1, 2, 4, 4),
  'backbone.width': 8,
  'backbone.stem_widths': (4, 5, 7),
}
SMALL_HEAD_OPTIONS = {
  'head.channels': 12,
  'head.out_channels': 10,
  'head.num_bases': 6,
}
# Name: tensors, classes (0: a backbone alone), what differs from the default.
NETWORKS = {
  'authors': (authors_shapes(), 21, {'backbone.depth': 50}),
  '256': (
    authors_shapes(59, 256, stage_sizes=(3, 4, 23, 3)),
    59,
    {'head.channels': 256},
  ),
  'small': (
    authors_shapes(**SMALL, **SMALL_HEAD),
    3,
    {**SMALL_OPTIONS, **SMALL_HEAD_OPTIONS},
  ),
  'mmsegmentation': (
    mmseg_shapes(),
    19,
    {**MMSEG, 'backbone.depth': 50, 'auxiliary_head.weight': 0.4},
  ),
  'small mmsegmentation': (
    mmseg_shapes(auxiliary=9, **SMALL, **SMALL_HEAD),
    3,
    {
      **MMSEG,
      **SMALL_OPTIONS,
      **SMALL_HEAD_OPTIONS,
      'backbone.multi_grid': (1, 1, 1, 1),
      'auxiliary_head.weight': 0.4,
      'auxiliary_head.channels': 9,
    },
  ),
  'without auxiliary head': (
    mmseg_shapes(150, auxiliary=0, stage_sizes=(3, 4, 23, 3)),
    150,
    MMSEG,
  ),
  'deep stem': (imagenet_shapes((3, 8, 36, 3)), 0, {'backbone.depth': 152}),
  'v1c': (
    imagenet_shapes((3, 4, 23, 3), stem=(32, 32, 64), stem_names=V1C),
    0,
    {'backbone.stem_widths': (32, 32, 64)},
  ),
  'torchvision': (
    imagenet_shapes(stem=(64,), stem_names=CLASSIC),
    0,
    {'backbone.depth': 50, 'backbone.stem_widths': (64,)},
  ),
  'mmsegmentation on ResNet-18': (
    mmseg_shapes(stage_sizes=(2, 2, 2, 2), basic=True, **SMALL_HEAD),
    3,
    {
      **MMSEG,
      **SMALL_HEAD_OPTIONS,
      'backbone.depth': 18,
      'auxiliary_head.weight': 0.4,
    },
  ),
  'mmsegmentation with a 7×7 stem': (
    mmseg_shapes(stem=(64,), stem_names=CLASSIC, **SMALL_HEAD),
    3,
    {
      **MMSEG,
      **SMALL_HEAD_OPTIONS,
      'backbone.depth': 50,
      'backbone.stem_widths': (64,),
      'auxiliary_head.weight': 0.4,
    },
  ),
  "torchvision's ResNet-34": (
    imagenet_shapes(stem=(64,), stem_names=CLASSIC, basic=True),
    0,
    {'backbone.depth': 34, 'backbone.stem_widths': (64,)},
  ),
  "torchvision's ResNeXt": (
    imagenet_shapes((1, 1, 1, 3), 16, (8,), CLASSIC, 8, 8),
    0,
    {
      'backbone.stage_sizes': (1, 1, 1, 3),
      'backbone.stem_widths': (8,),
      'backbone.width': 16,
      'backbone.groups': 8,
      'backbone.width_per_group': 8,
    },
  ),
  "torchvision's Wide ResNet": (
    imagenet_shapes((1, 1, 1, 3), 16, (8,), CLASSIC, 1, 128),
    0,
    {
      'backbone.stage_sizes': (1, 1, 1, 3),
      'backbone.stem_widths': (8,),
      'backbone.width': 16,
      'backbone.width_per_group': 128,
    },
  ),
  "mmsegmentation's MiT": (
    mit_shapes((64, 128, 320, 512), (2, 2, 2, 2)),
    0,
    {'backbone.name': 'mit', 'backbone.variant': 'b1'},
  ),
  "torchvision's FCN": (
    torchvision_shapes('fcn', channels=512, stem=(64,)),
    21,
    {
      **TORCHVISION,
      'backbone.depth': 50,
      'head.name': 'fcn',
      'head.num_convs': 1,
      'auxiliary_head.weight': 0.5,
    },
  ),
  "torchvision's DeepLabV3": (
    torchvision_shapes('deeplabv3', auxiliary=0, stem=(64,)),
    21,
    {
      **TORCHVISION,
      'backbone.depth': 50,
      'head.name': 'deeplabv3',
      'head.num_convs': 1,
    },
  ),
}
