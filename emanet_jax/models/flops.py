"""Floating-point operations of products and convolutions, counted on paper."""

import collections
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core


def count(function: Callable, *args) -> int:
  """The operations that a function's products and convolutions take.

  A multiplication and an addition are two, whatever the dtype; products with
  padding count, everything else does not.

  Args:
    function: Of arrays.
    *args: Its arguments, or their shapes.
  """
  return sum(by_module(function, *args).values())


def of_evaluation(model: nn.Module, variables: dict, image: Any) -> int:
  """The same of a network's evaluation, whatever its convolutions are made of.

  Args:
    model: A `Segmenter`.
    variables: Its variables, or their shapes.
    image: [b, h, w, 3], or its shape.
  """
  return count(model.clone(convolution='flax').apply, variables, image)


def by_module(function: Callable, *args) -> dict[str, int]:
  """The same for each module of flax's, by its path: 'head/conv_in/conv'.

  What a module does outside of its own modules is its own.
  """
  found = collections.Counter()
  _count(jax.make_jaxpr(function)(*args).jaxpr, '', 1, found)
  return dict(found)


def _count(jaxpr, outer: str, times: int, found: collections.Counter) -> None:
  for equation in jaxpr.eqns:
    stack = f'{outer}/{equation.source_info.name_stack}'
    name = equation.primitive.name
    if name == 'dot_general':
      found[_path(stack)] += times * _of_product(equation)
    elif name == 'conv_general_dilated':
      found[_path(stack)] += times * _of_convolution(equation)
    elif name in ('cond', 'while'):
      most = collections.Counter()
      for inner in _inner(equation):
        branch = collections.Counter()
        _count(inner, stack, times, branch)
        most = max(most, branch, key=lambda counted: counted.total())
      found.update(most)
    else:
      repeats = times * equation.params.get('length', 1)  # of a scan
      for inner in _inner(equation):
        _count(inner, stack, repeats, found)


def _path(stack: str) -> str:
  """The modules of a name stack; classes, methods and products are no names."""
  names = stack.split('/')
  return '/'.join(name for name in names if re.fullmatch(r'[a-z]\w*', name))


def _inner(equation) -> list:
  found = []
  for value in equation.params.values():
    for x in value if isinstance(value, tuple | list) else (value,):
      if isinstance(x, core.ClosedJaxpr):
        found.append(x.jaxpr)
      elif isinstance(x, core.Jaxpr):
        found.append(x)
  return found


def _of_product(equation) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  shape = equation.invars[0].aval.shape
  depth = math.prod(shape[axis] for axis in contracted)
  return 2 * depth * equation.outvars[0].aval.size


def _of_convolution(equation) -> int:
  numbers = equation.params['dimension_numbers']
  kernel = equation.invars[1].aval
  features = kernel.shape[numbers.rhs_spec[0]]
  return 2 * equation.outvars[0].aval.size * kernel.size // features
