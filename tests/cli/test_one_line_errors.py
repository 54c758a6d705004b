"""Errors that a user can act on end the program with one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.cli import one_line_errors


class Ended(Exception):
  pass


@pytest.fixture(autouse=True)
def ended(monkeypatch):
  """Raises what the program would say, instead of ending it."""

  def fail(message, status=2):
    raise Ended(status, message)

  monkeypatch.setattr(one_line_errors, 'fail', fail)


def raised(error):
  raise error


@pytest.mark.parametrize(
  'call, said',
  [
    (lambda: jnp.zeros(2**44).block_until_ready(), 'not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating'),
    (lambda: np.zeros(2**60, np.float32), 'not enough memory (Unable to allocate'),
    (lambda: raised(MemoryError()), 'not enough memory (no more is given); expected more of it, or a smaller'),
    (
      lambda: raised(OSError(28, 'No space left', 'metrics.json')),
      "'metrics.json'; expected a disk with room; what is complete",
    ),
    (
      lambda: raised(OSError(13, 'No', 'items.csv')),
      "'items.csv'; expected a file or folder that this user may read and",
    ),
    (lambda: raised(KeyboardInterrupt()), 'interrupted; the same command resumes'),
  ],
)
def test_what_a_user_can_act_on_is_one_line(call, said):
  with pytest.raises(Ended) as caught, one_line_errors.one_line_errors():
    call()
  status, message = caught.value.args
  assert status == 2 and said in message and '\n' not in message


@pytest.mark.parametrize('error', [jax.errors.JaxRuntimeError('INTERNAL: a bug'), OSError(5, 'broken')])
def test_what_nobody_expected_shows_where_it_was(error):
  with pytest.raises(type(error)), one_line_errors.one_line_errors():
    raised(error)
