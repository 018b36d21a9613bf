"""Floating-point operations of products and convolutions, counted on paper."""

import math
from collections.abc import Callable

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
  return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      total += _of_product(equation)
    elif equation.primitive.name == 'conv_general_dilated':
      total += _of_convolution(equation)
    elif equation.primitive.name in ('cond', 'while'):
      total += max(map(_count, _inner(equation)))
    else:
      repeats = equation.params.get('length', 1)  # of a scan
      total += repeats * sum(map(_count, _inner(equation)))
  return total


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
