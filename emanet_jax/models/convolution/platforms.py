"""What CPUs compute in other ways than accelerators."""

import functools
from collections.abc import Callable

from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata


def by_platform(
  cpu: Callable, default: Callable | None = None, **options
) -> Callable:
  """A jitted function for CPUs, another for the rest.

  On CPUs it stays a program of its own: equal layers share it, which shortens
  the compilation; and what it begins with (a transposition, slices) is not
  merged with what made its input, nor kept from where that was computed before.

  Args:
    cpu: For CPUs.
    default: For the rest; None: the same, which only CPUs take apart.
    **options: Static keyword arguments of both.
  """

  def alone(*args):
    with set_xla_metadata(inlineable='false'):
      return cpu(*args, **options)

  return lambda *args: lax.platform_dependent(
    *args, cpu=alone, default=functools.partial(default or cpu, **options)
  )
