"""The command line, for the tests of this folder."""

import pytest

from tests import forked


@pytest.fixture
def command():
  """Runs `letter-jax ARGUMENTS` as a process of its own: see `forked.run`."""
  return forked.run
