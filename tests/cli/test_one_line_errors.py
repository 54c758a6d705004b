"""Errors that a user can act on end the program with one line."""

import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from letter_jax.cli.one_line_errors import one_line_errors
with one_line_errors():
  {}
"""


@pytest.mark.parametrize(
  'call, status, said',
  [
    ('jnp.zeros(2**44).block_until_ready()', 2, 'not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating'),
    ('np.zeros(2**60, np.float32)', 2, 'not enough memory (Unable to allocate'),
    ('raise MemoryError', 2, 'not enough memory (no more is given); expected more of it, or a smaller'),
    (
      'raise OSError(28, "No space left on device", "metrics.json")',
      2,
      "No space left on device: 'metrics.json'; what",
    ),
    ('raise KeyboardInterrupt', 2, 'interrupted; the same command resumes'),
  ],
)
def test_what_a_user_can_act_on_is_one_line(call, status, said):
  done = subprocess.run([sys.executable, '-c', PROGRAM.format(call)], capture_output=True, text=True, check=False)
  (line,) = done.stderr.splitlines()
  assert done.returncode == status and line.startswith('letter_jax: error: ') and said in line


@pytest.mark.parametrize('call', ['raise jax.errors.JaxRuntimeError("INTERNAL: a bug")', 'raise OSError(5, "broken")'])
def test_what_nobody_expected_shows_where_it_was(call):
  done = subprocess.run([sys.executable, '-c', PROGRAM.format(call)], capture_output=True, text=True, check=False)
  assert done.returncode == 1 and 'Traceback' in done.stderr
