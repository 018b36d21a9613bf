"""What is measured over sizes: forward passes of one image."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from emanet_jax.models.em_attention import em_attention
from emanet_jax.models.ema_unit import EMAUnit
from emanet_jax.models.segmenter import create_model
from emanet_jax.tools.benchmark import subjects


@dataclasses.dataclass(frozen=True)
class Work:
  """A forward pass: a function of variables and of features or an image."""

  function: Callable[[Any, jax.Array], jax.Array]
  variables: Any
  x: jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Curve:
  """The works of a subject at values of N, K or T, rising."""

  subject: str
  channels: int
  over: str
  works: dict[int, Work]


def curves(
  config: ml_collections.ConfigDict,
  sides: Sequence[int],
  channels: Sequence[int],
  bases: Sequence[int],
  stages: Sequence[int],
) -> list[Curve]:
  """All curves; for the arguments see `scaling.measure`."""
  network = functools.partial(_network, config, {})
  found = []
  for c in channels:
    for subject, work, side in (
      ('EM attention', _em_attention, sides[1]),
      ('EM attention unit', _unit, sides[1]),
      ('whole network', network, sides[0]),
    ):
      over_n = {s * s: work(s, c) for s in sides}
      over_k = {k: work(side, c, bases=k) for k in bases}
      over_t = {t: work(side, c, stages=t) for t in stages}
      found += [
        Curve(subject, c, 'N', over_n),
        Curve(subject, c, 'K', over_k),
        Curve(subject, c, 'T', over_t),
      ]
    over_n = {s * s: _non_local(s, c) for s in sides}
    found.append(Curve('non-local attention', c, 'N', over_n))
  return found


def _em_attention(side, channels, bases=64, stages=3) -> Work:
  def function(mu, x):
    return em_attention(x, mu, num_stages=stages)[0]

  mu = _bases(1, bases, channels)
  return Work(function, mu, _shape(1, side * side, channels))


def _non_local(side, channels) -> Work:
  """softmax(x xᵀ / √C) x, all N² relations at once."""

  def function(_, x):
    x = x[:, :, None]  # one head
    with jax.default_matmul_precision('highest'):
      return jax.nn.dot_product_attention(x, x, x, implementation='xla')

  return Work(function, (), _shape(1, side * side, channels))


def _unit(side, channels, bases=64, stages=3) -> Work:
  unit = EMAUnit(num_bases=bases, num_stages=stages)
  x = _shape(1, side, side, channels)
  init = functools.partial(unit.init, train=False)
  variables = subjects.draw(jax.eval_shape(init, jax.random.key(0), x))
  return Work(functools.partial(unit.apply, train=False), variables, x)


def _network(config, drawn, side, channels, bases=64, stages=3) -> Work:
  """Variables are drawn once for a number of channels, and kept in `drawn`."""
  config = copy.deepcopy(config)
  config.head.update(channels=channels, num_bases=bases, num_stages=stages)
  model = create_model(config, subjects.CLASSES)
  if channels not in drawn:
    drawn[channels] = subjects.draw_variables(model)
  variables = dict(drawn[channels])
  variables['bases'] = jax.tree.map(
    lambda _: _bases(bases, channels), variables['bases']
  )
  image = (side - 1) * model.output_stride + 1
  return Work(model.apply, variables, _shape(1, image, image, 3))


def _bases(*shape) -> jax.Array:
  return subjects.draw({'mu': _shape(*shape)})['mu']


def _shape(*shape) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, np.float32)
