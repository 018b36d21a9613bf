"""Attention blocks alone give the figures of tests/golden/rivals/units."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from emanet_jax.models.attention.non_local import NonLocal
from emanet_jax.models.attention.pyramid import PooledBranches
from emanet_jax.models.heads.a2 import DoubleAttention
from emanet_jax.models.heads.cc import CrissCross
from emanet_jax.models.heads.da import ChannelAttention, PositionAttention
from emanet_jax.models.heads.dnl import DisentangledNonLocal
from emanet_jax.models.heads.gc import GlobalContext
from emanet_jax.models.pytorch import layouts
from emanet_jax.models.pytorch.weights import to_flax
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
  names = layouts.Layout('', (), {}, modules).names(())
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
  if isinstance(output, list):
    output = np.concatenate(output, axis=-1)
  np.testing.assert_allclose(
    output[..., ::4], _nhwc(figures[f'{name}.output']), rtol=0, atol=5e-6
  )
