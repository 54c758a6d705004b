"""The one exception that stands for a user's mistake."""


class InputError(Exception):
  """A wrong input: file, row, value, config key or checkpoint.

  The message is one line that says what is wrong, where, and what was expected.
  `letter_jax.main` prints it without a traceback and exits with status 2.
  """
