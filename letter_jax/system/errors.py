"""The exceptions that end a run on purpose; any other exception is a fault of the program."""


class InputError(ValueError):
  """A wrong input: file, row, value, config key or checkpoint.

  The message is one line that says what is wrong, where, and what was expected.
  `letter_jax.main` prints it without a traceback and exits with status 2.
  """


class Preempted(Exception):
  """The machine is being taken away (SIGTERM); the message says what was saved, and how to go on.

  All of several processes raise it.
  """
