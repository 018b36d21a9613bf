"""The error a person can act on."""


class UserError(ValueError):
  """Something the user can put right: a config value, a file, a folder.

  Its message says what was got, what was expected and what to do, and for a
  file its path. `main` prints it without a traceback.
  """
