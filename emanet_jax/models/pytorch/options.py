"""The options of a network, from its tensors."""

from typing import Any

import numpy as np

from emanet_jax.models.backbones.mit import VARIANTS
from emanet_jax.models.backbones.resnet import BASIC, EXPANSION, STAGE_SIZES
from emanet_jax.models.pytorch.layouts import Layout, Path


def options(layout: Layout, found: dict[Path, np.ndarray]) -> dict[str, Any]:
  """What sets this network apart from the default, by dotted keys."""
  blocks = tuple(
    len({p[2] for p in found if p[2].startswith(f'layer{stage}_')})
    for stage in (1, 2, 3, 4)
  )
  of_backbone = (
    _of_mit(found, blocks)
    if layout.options.get('backbone.name') == 'mit'
    else _of_resnet(found, blocks, layout.options)
  )
  return {
    **layout.options,
    **of_backbone,
    **{key: _size(found, *place) for key, place in layout.sizes.items()},
  }


def _of_mit(found, blocks):
  widths = tuple(
    width(found, f'backbone/patches{i}/patch') for i in range(1, 5)
  )
  for variant, known in VARIANTS.items():
    if (widths, blocks) == known:
      return {'backbone.variant': variant}
  return {'backbone.widths': widths, 'backbone.stage_sizes': blocks}


def _of_resnet(found, blocks, of_layout):
  stems = sorted({p[2] for p in found if p[2].startswith('stem')})
  grid = of_layout.get('backbone.multi_grid', (1, 2, 4))
  options = {
    'backbone.multi_grid': grid,
    'backbone.stem_widths': tuple(
      width(found, f'backbone/{stem}/conv') for stem in stems
    ),
    **_widths(found),
  }
  basic = _path('layer1_0/conv3') not in found
  depths = {
    sizes: depth
    for depth, sizes in STAGE_SIZES.items()
    if (depth in BASIC) == basic
  }
  if blocks in depths:
    return {**options, 'backbone.depth': depths[blocks]}
  grid += grid[-1:] * (blocks[3] - len(grid))
  return {
    **options,
    **({'backbone.basic_blocks': True} if basic else {}),
    'backbone.stage_sizes': blocks,
    'backbone.multi_grid': grid,
  }


def _widths(found: dict[Path, np.ndarray]) -> dict[str, int]:
  """The options that a ResNet's first block tells."""
  first, second, third = (_path(f'layer1_0/conv{i}') for i in (1, 2, 3))
  if third not in found:
    return {'backbone.width': _size(found, first, -1)}
  planes = max(_size(found, third, -1) // EXPANSION, 1)
  inner = _size(found, second, -1)
  groups = max(inner // max(_size(found, second, 2), 1), 1)
  return {
    'backbone.width': planes,
    'backbone.groups': groups,
    'backbone.width_per_group': -(-inner * 64 // (planes * groups)),
  }


def _path(conv_norm: str) -> Path:
  return ('params', 'backbone', *conv_norm.split('/'), 'conv', 'kernel')


def width(found: dict[Path, np.ndarray], module: str) -> int:
  """A convolution's output channels; 1 where that cannot be said."""
  return _size(found, ('params', *module.split('/'), 'kernel'), -1)


def _size(found: dict[Path, np.ndarray], path: Path, axis: int) -> int:
  value = found.get(path)
  return value.shape[axis] if value is not None and value.ndim else 1
