"""Numbers in messages."""

import pytest

from letter_jax.system.wording import counted


@pytest.mark.parametrize(
  'arguments, expected',
  [
    ((0, 'user'), '0 users'),
    ((1, 'user'), '1 user'),
    ((2, 'user'), '2 users'),
    ((1234, 'training example'), '1,234 training examples'),
    ((1, 'history', 'histories'), '1 history'),
    ((2, 'history', 'histories'), '2 histories'),
  ],
)
def test_a_number_with_its_noun(arguments, expected):
  assert counted(*arguments) == expected
