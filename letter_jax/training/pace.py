"""How fast a training goes, and how much time it has left."""

from letter_jax.configuration import TrainingConfig
from letter_jax.system import time_left


class Pace:
  """Collects the times of a training's steps and validations."""

  def __init__(self, label: str, config: TrainingConfig, steps_per_epoch: int, steps_per_call: int = 1) -> None:
    """Nothing is known yet."""
    self._label, self._config, self._steps_per_epoch = label, config, steps_per_epoch
    self._total = config.total_steps(steps_per_epoch, steps_per_call)
    self._has_compiled = False
    self._steps, self._seconds = 0, 0.0
    self._first_validation: float | None = None
    self._validation: float | None = None

  def took(self, steps: int, seconds: float) -> None:
    """Adds an interval of steps without validations. The first one is not counted, as its first step compiles."""
    if self._has_compiled:
      self._steps += steps
      self._seconds += seconds
    self._has_compiled = True

  def validation_took(self, seconds: float) -> None:
    """Adds a validation; the latest is expected again. The first one is not, as it compiles."""
    if self._first_validation is None:
      self._first_validation = seconds
      return
    self._validation = seconds
    time_left.validation_took(seconds, max(self._first_validation - seconds, 0.0))

  def left(self, step: int, validations_since_best: int) -> str:
    """The time that is left after `step`, in words; '' while that is not known, and at the end."""
    config = self._config
    steps = self._total - step
    if not self._steps or steps <= 0:
      return ''
    every = config.evaluate_every_epochs * self._steps_per_epoch
    validations = self._total // every - step // every + bool(self._total % every)
    seconds = steps * self._seconds / self._steps + validations * (self._validation or 0.0)
    may_end_earlier = config.patience - validations_since_best < validations
    besides = '' if self._validation is not None else f' besides {validations} validation' + 's' * (validations > 1)
    return time_left.in_words(self._label, seconds, 'up to' if may_end_earlier else 'about', besides)
