"""The time that a training has left, from the times of its own steps and validations."""

import pytest

from letter_jax.configuration import TrainingConfig
from letter_jax.system.time_left import Outlook, followed_by
from letter_jax.training.pace import Pace


@pytest.fixture
def pace():
  """Of 10 epochs with 100 steps, a validation every 4 epochs and one at the end, patience for 2."""
  return Pace('generator', TrainingConfig(epochs=10, evaluate_every_epochs=4, patience=2), 100)


def test_nothing_is_said_before_a_step_was_timed_that_did_not_compile(pace):
  assert pace.left(0, 0) == ''
  pace.took(50, 600.0)
  assert pace.left(50, 0) == ''
  pace.took(50, 5.0)
  assert pace.left(200, 0) == 'up to 80 s left besides 3 validations'


def test_steps_and_validations_that_are_left(pace):
  pace.took(1, 600.0)
  pace.took(100, 8.0)
  pace.took(100, 12.0)  # 0.1 s a step
  assert pace.left(201, 0) == 'up to 80 s left besides 3 validations'
  pace.validation_took(600.0)
  assert pace.left(400, 0) == 'about 60 s left besides 2 validations'
  pace.validation_took(6.0)
  assert pace.left(400, 0) == 'about 72 s left'  # 600 steps, 2 validations: none of them can end it before
  assert pace.left(400, 1) == 'up to 72 s left'
  assert pace.left(799, 0) == 'about 32 s left'
  assert pace.left(800, 0) == 'about 26 s left'
  assert pace.left(999, 0) == 'about 6 s left'
  assert pace.left(1000, 0) == ''


def test_a_limit_of_steps_within_an_epoch():
  pace = Pace('generator', TrainingConfig(epochs=10, max_steps=450, evaluate_every_epochs=2, patience=9), 100)
  pace.took(1, 600.0)
  pace.took(100, 10.0)
  assert pace.left(100, 0) == 'about 35 s left besides 3 validations'  # at 200, 400 and 450
  assert pace.left(450, 0) == ''


def test_a_single_validation(pace):
  pace.took(1, 600.0)
  pace.took(10, 1.0)
  assert pace.left(900, 0) == 'about 10 s left besides 1 validation'


def test_a_validation_tells_of_the_evaluation_without_its_compilation(pace):
  outlook = Outlook({'evaluate': None}, {'evaluate': (10.0, 2)})
  with followed_by(outlook):
    pace.validation_took(25.0)
    assert outlook.seconds == {'evaluate': None}
    pace.validation_took(5.0)
    assert outlook.seconds == {'evaluate': 2 * 20 + 10 * 5}
