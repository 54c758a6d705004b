"""The words for the time that is left, and that nothing is said that is not known."""

import pytest

from letter_jax.system import time_left
from letter_jax.system.time_left import Outlook, followed_by, in_words


@pytest.mark.parametrize(
  'seconds, words',
  [(0.4, '0 s'), (89.4, '89 s'), (90, '2 min'), (720, '12 min'), (5399, '90 min'), (5400, '1.5 h'), (90_000, '25.0 h')],
)
def test_durations(seconds, words):
  assert time_left.duration(seconds) == words


def test_a_training_by_itself():
  assert in_words('generator', 720) == 'about 12 min left'
  assert in_words('generator', 720, 'up to', ' besides 2 validations') == 'up to 12 min left besides 2 validations'


@pytest.mark.parametrize(
  'seconds, words',
  [
    ({}, ''),
    ({'a': 60, 'b': 60, 'c': 60, 'report': None}, ', 15 min with 3 more stages, then report'),
    ({'evaluate': 120, 'report': 60}, ', 15 min with all stages'),
    ({'evaluate': 120, 'report': None}, ', 14 min with evaluate, then report'),
    ({'evaluate': None, 'report': 60}, ', 13 min with report, then evaluate'),
    ({'tokenizer': None, 'evaluate': None, 'report': None}, ', then 3 more stages'),
  ],
)
def test_the_stages_after_it(seconds, words):
  with followed_by(Outlook(seconds)):
    assert in_words('generator', 720) == f'about 12 min left{words}'
  assert in_words('generator', 720) == 'about 12 min left'


def test_no_sum_while_something_is_not_counted():
  with followed_by(Outlook({'evaluate': 120, 'report': None})):
    words = in_words('generator', 720, besides=' besides 1 validation')
  assert words == 'about 12 min left besides 1 validation, then evaluate and report'


def test_a_second_training_of_the_stage():
  with followed_by(Outlook({'report': 60}, trainings=('sasrec', 'lightgcn'))):
    assert in_words('sasrec', 720) == 'about 12 min left, 13 min with report, then lightgcn'
    assert in_words('lightgcn', 720) == 'about 12 min left, 13 min with all stages'


def test_what_a_validation_tells():
  outlook = Outlook({'evaluate': None, 'report': None}, {'evaluate': (10.0, 2)})
  assert outlook.in_words() == 'evaluate and report'
  with followed_by(outlook):
    time_left.validation_took(12, 60)
    assert in_words('generator', 720) == 'about 12 min left, 16 min with evaluate, then report'
  assert outlook.in_words() == 'evaluate (about 4 min) and report'


def test_the_sum_of_all_stages():
  outlook = Outlook({'generator': 720, 'evaluate': 120, 'report': 60})
  expected = 'generator (about 12 min), evaluate (about 2 min) and report (about 60 s), about 15 min in all'
  assert outlook.in_words() == expected
  assert Outlook({'report': 60}).in_words() == 'report (about 60 s)'
