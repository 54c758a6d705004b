"""The fields of the schema: one setting, with its meaning and limits, and a section of settings."""

import dataclasses
from typing import Any, TypeVar

_T = TypeVar('_T')


def setting(
  default: _T,
  meaning: str,
  *,
  minimum: float | None = None,
  above: float | None = None,
  maximum: float | None = None,
  below: float | None = None,
  choices: tuple[str, ...] | None = None,
  date: bool = False,
  path: bool = False,
) -> _T:
  """A dataclass field for one setting; the limits apply to each entry of a tuple.

  Args:
    default: the value where a recipe sets none.
    meaning: one line of documentation.
    minimum, maximum: the smallest and the largest value that is accepted.
    above, below: values have to be larger or smaller than these.
    choices: the only values that are accepted.
    date: values have to be a day as YYYY-MM-DD, or ''.
    path: values are paths, in which `~` stands for the home folder.
  """
  limits = dict(minimum=minimum, above=above, maximum=maximum, below=below, choices=choices, date=date, path=path)
  return dataclasses.field(default=default, metadata={'meaning': meaning, **limits})


def section(kind: type[_T], **overrides: Any) -> _T:
  """A dataclass field for a section of settings: `kind`, with other defaults for the settings in `overrides`."""
  return dataclasses.field(default_factory=lambda: kind(**overrides))
