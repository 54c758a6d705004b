"""How much time is left, in words: of what runs and of the stages after it, as far as it is known."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence


@dataclasses.dataclass
class Outlook:
  """The stages after the one that runs.

  Attributes:
    seconds: name -> seconds that it is expected to take, None where that is not known, in order.
    validations: name -> seconds that it takes for each second that a validation of the running stage takes, and how
      often it compiles as much as that does.
    trainings: of the running stage, in order.
  """

  seconds: dict[str, float | None] = dataclasses.field(default_factory=dict)
  validations: Mapping[str, tuple[float, int]] = dataclasses.field(default_factory=dict)
  trainings: tuple[str, ...] = ()

  def validation_took(self, seconds: float, compilation: float) -> None:
    """Derives what is not known otherwise from a validation of the running stage, and from how long it compiled."""
    self.seconds |= {
      name: programs * compilation + times * seconds for name, (times, programs) in self.validations.items()
    }

  def known(self) -> dict[str, float]:
    """Those of `seconds` that are known."""
    return {name: seconds for name, seconds in self.seconds.items() if seconds is not None}

  def in_words(self) -> str:
    """All of them, each with its time where that is known; and the sum, if it is."""
    known = self.known()
    each = [f'{name} (about {duration(known[name])})' if name in known else name for name in self.seconds]
    in_all = f', about {duration(sum(known.values()))} in all' if len(known) == len(self.seconds) > 1 else ''
    return f'{_listed(each)}{in_all}'


_outlook = Outlook()


@contextlib.contextmanager
def followed_by(outlook: Outlook) -> Iterator[None]:
  """A context in which `outlook` are the stages after the one that runs."""
  global _outlook
  before, _outlook = _outlook, outlook
  try:
    yield
  finally:
    _outlook = before


def validation_took(seconds: float, compilation: float) -> None:
  """`Outlook.validation_took` of the stage that runs."""
  _outlook.validation_took(seconds, compilation)


def in_words(label: str, seconds: float, qualified: str = 'about', besides: str = '') -> str:
  """The time that is left of a training, and with it that of the later stages.

  Args:
    label: of the training.
    seconds: of the training.
    qualified: what comes before the time: 'about' or 'up to'.
    besides: what is not counted, such as ' besides 2 validations'.
  """
  known = _outlook.known()
  trainings = _outlook.trainings
  next_trainings = trainings[trainings.index(label) + 1 :] if label in trainings else ()
  unknown = [*next_trainings, *(name for name in _outlook.seconds if name not in known)]
  words = f'{qualified} {duration(seconds)} left{besides}'
  if known and not besides:
    with_later = _few(list(known)) if unknown else 'all stages'
    words += f', {duration(seconds + sum(known.values()))} with {with_later}'
  elif known:
    unknown = [*next_trainings, *_outlook.seconds]
  return f'{words}, then {_few(unknown)}' if unknown else words


def duration(seconds: float) -> str:
  """Seconds in a unit that suits them, such as '45 s', '12 min' or '3.5 h'."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 90 * 60:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def _few(names: Sequence[str]) -> str:
  return _listed(names) if len(names) <= 2 else f'{len(names)} more stages'


def _listed(names: Sequence[str]) -> str:
  *others, last = names
  return f'{", ".join(others)} and {last}' if others else last
