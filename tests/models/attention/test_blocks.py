"""Attention blocks alone give the figures of tests/golden/rivals/units."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.models.attention.non_local import NonLocal
from emanet_jax.models.attention.point_wise import pair_scores
from emanet_jax.models.attention.pyramid import PooledBranches
from emanet_jax.models.heads.a2 import DoubleAttention
from emanet_jax.models.heads.cc import CrissCross
from emanet_jax.models.heads.da import ChannelAttention, PositionAttention
from emanet_jax.models.heads.dnl import DisentangledNonLocal
from emanet_jax.models.heads.enc import ContextEncoding
from emanet_jax.models.heads.gc import GlobalContext
from emanet_jax.models.pytorch import layouts
from emanet_jax.models.pytorch.resnets import Blocks
from emanet_jax.models.pytorch.tensors import to_flax
from tests import recipe


def _nhwc(x):
  return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


# Unit: block, its modules' prefix in mmsegmentation and here, in which head.
UNITS = {
  'a2': (DoubleAttention(16, 16, 0.9), ('a2_block', 'block/', 'a2', 'a2')),
  'cam': (ChannelAttention(), ('cam', 'cam_block/', 'da', 'cam')),
  'cca': (CrissCross(8), ('cca', 'block/', 'cc', 'cca')),
  'dnl': (
    DisentangledNonLocal(32, 0.05, True, 0.9),
    ('dnl_block', 'block/', 'dnl', 'dnl'),
  ),
  'enc': (ContextEncoding(8, 0.9), ('enc_module', 'context/', 'enc', 'enc')),
  'gc': (GlobalContext(16), ('gc_block', 'block/', 'gc', 'gc')),
  'nonlocal': (
    NonLocal(32, 'softmax', True, 0.9),
    ('nl_block', 'block/', 'nonlocal', 'nonlocal'),
  ),
  'nonlocal_dot': (
    NonLocal(32, 'dot', True, 0.9),
    ('nl_block', 'block/', 'nonlocal', 'nonlocal_dot'),
  ),
  'pam': (PositionAttention(8), ('pam', 'pam_block/', 'da', 'pam')),
  'ppm': (
    PooledBranches(16, (1, 2, 3, 6), False, 0.9),
    ('psp_modules', 'pyramid/', 'psp', 'ppm'),
  ),
  'ppm_align': (
    PooledBranches(16, (1, 2, 3, 6), True, 0.9),
    ('psp_modules', 'pyramid/', 'psp', 'ppm'),
  ),
}


@pytest.mark.parametrize('name', UNITS)
def test_unit(name):
  figures = recipe.golden('rivals/units')
  seed, *shape = (
    int(figures[k]) for k in ('seed', 'batch', 'channels', 'height', 'width')
  )
  unit, (theirs, ours, head, prefix) = UNITS[name]
  modules = next(h for h in layouts.HEADS if h.name == head).modules
  modules = {
    k.replace(theirs, prefix): v.removeprefix(ours)
    for k, v in modules.items()
    if k.startswith(f'{theirs}.')
  }
  names = layouts.Layout('', (), {}, modules).names(Blocks())
  shapes = recipe.rival_shapes(f'unit_{prefix}')
  assert names.keys() == shapes.keys()
  variables = {}
  for key, path in names.items():
    path = tuple(x for x in path if x != 'backbone')
    value = recipe.weight(key, tuple(shapes[key]), seed)
    variables[path] = to_flax(value, path)
  x = np.random.default_rng([3, seed]).standard_normal(shape)
  x = _nhwc(np.maximum(0, x).astype(np.float32))
  apply = jax.jit(functools.partial(unit.apply, train=False))
  output = apply(traverse_util.unflatten_dict(variables), x)
  if isinstance(output, list):  # of branches
    output = np.concatenate(output, axis=-1)
  elif isinstance(output, tuple):  # with an encoding
    output, encoding = output
    np.testing.assert_allclose(
      encoding[:, 0, 0], figures[f'{name}.encoding'], rtol=0, atol=5e-6
    )
  np.testing.assert_allclose(
    output[..., ::4], _nhwc(figures[f'{name}.output']), rtol=0, atol=5e-6
  )


@pytest.mark.parametrize('case', ['exact', 'even', 'larger', 'truncated'])
def test_scores_of_offsets(case):
  figures = recipe.golden('rivals/units')
  height, width, *mask = figures[f'psamask.{case}.size'].tolist()
  rng = np.random.default_rng([13, int(figures['seed'])])
  x = rng.standard_normal((2, np.prod(mask), height, width)).astype('f4')
  kernel = np.eye(np.prod(mask), dtype='f4').reshape(*mask, -1)
  pairs = np.asarray(pair_scores(_nhwc(x), kernel))
  size = height * width
  for name, expected in (
    ('collect', pairs.swapaxes(1, 2)),  # [b, q, p]
    ('distribute', pairs),
  ):
    got = figures[f'psamask.{case}.{name}'].reshape(2, size, size)
    np.testing.assert_array_equal(got, expected)
