"""What a program of this package says on its terminal."""

import os

from absl import logging


def log_own_progress() -> None:
  """Shows this package's progress, and of libraries only warnings."""
  package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
  own = package + os.sep
  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(
    lambda record: (
      record.levelname != 'INFO'
      or os.path.realpath(record.pathname).startswith(own)
    )
  )
