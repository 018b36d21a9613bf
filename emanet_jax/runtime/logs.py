"""What a program of this package says on its terminal."""

import logging as standard
import os
import sys
import types

from absl import logging


def log_own_progress() -> None:
  """Shows this package's progress, and of libraries the gist of warnings.

  Their errors are raised as well, and told where they are caught: hundreds of
  lines of their threads' tracebacks would hide that.
  """
  package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
  own = package + os.sep

  def show(record: standard.LogRecord) -> bool:
    if os.path.realpath(record.pathname).startswith(own):
      return True
    first, _, rest = record.getMessage().partition('\n')
    if rest or record.exc_info or len(first) > 300:
      record.msg, record.args = first[:300], ()
      record.exc_info = record.exc_text = None
    return record.levelname != 'INFO'

  logging.set_verbosity(logging.INFO)
  logging.get_absl_handler().addFilter(show)
  sys.excepthook = _except_of_closed_loops


def _except_of_closed_loops(
  kind: type[BaseException],
  error: BaseException,
  trace: types.TracebackType | None,
) -> None:
  """Python's own hook, but for what follows a save that failed.

  Each file that is still being written then finds the loop closed that it
  reports to.
  """
  if kind is not RuntimeError or str(error) != 'Event loop is closed':
    sys.__excepthook__(kind, error, trace)
