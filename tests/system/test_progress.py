"""Progress where there is no terminal: a line a minute."""

import pytest

from letter_jax.system import progress
from letter_jax.system.progress import Progress


@pytest.fixture
def seconds(monkeypatch):
  """A clock that a test sets."""
  clock = [0.0]
  monkeypatch.setattr(progress.time, 'perf_counter', lambda: clock[0])
  return clock


def test_a_line_a_minute_with_the_time_that_is_left(seconds, capsys):
  with Progress('evaluate test', 6000, 'user') as users:
    for now in (50, 70, 110, 129, 131, 300):  # the first compiles
      seconds[0] = now
      users.update(1000)
  assert capsys.readouterr().out.splitlines() == [
    'evaluate test: 2,000 of 6,000 users, about 80 s left',
    'evaluate test: 5,000 of 6,000 users, about 20 s left',
    'evaluate test: 6,000 of 6,000 users, about 0 s left',
  ]


def test_without_a_label_nothing_is_said(seconds, capsys):
  with Progress('', 3, 'user') as users:
    for now in (100, 200, 300):
      seconds[0] = now
      users.update(1)
  said = capsys.readouterr()
  assert said.out == said.err == ''
