"""The error a person can act on."""

from collections.abc import Sequence
from typing import Any

_LISTED = 10  # names, values or colours in a message


class UserError(ValueError):
  """Something the user can put right: a config value, a file, a folder.

  Its message says what was got, what was expected and what to do, and for a
  file its path. `main` prints it without a traceback.
  """


class TryAgainError(UserError):
  """What may be gone when the same command is started again.

  `main` ends with 75 (EX_TEMPFAIL) then, which launchers take for that.
  """


def listed(entries: Sequence[Any]) -> str:
  """Up to ten entries as text, and how many more there are."""
  more = len(entries) - _LISTED
  text = ', '.join(str(entry) for entry in entries[:_LISTED])
  return f'{text} and {more} more' if more > 0 else text
