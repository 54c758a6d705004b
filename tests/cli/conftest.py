"""The command line, for the tests of this folder."""

import pytest

from tests.command_line import CommandLine


@pytest.fixture(scope='session')
def command():
  """Runs `letter-jax ARGUMENTS`: see `CommandLine`."""
  command_line = CommandLine()
  yield command_line
  command_line.close()
