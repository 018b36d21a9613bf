"""Counts what JAX compiles."""

import contextlib
import logging

import jax


@contextlib.contextmanager
def compilations(name):
  """Collects a line for each compilation of a function of this name."""
  found = []

  class Collect(logging.Handler):
    def emit(self, record):
      message = record.getMessage()
      if message.startswith(f'Compiling jit({name})'):
        found.append(message)

  logger, handler = logging.getLogger('jax._src.interpreters.pxla'), Collect()
  logger.addHandler(handler)
  try:
    with jax.log_compiles():
      yield found
  finally:
    logger.removeHandler(handler)
