"""Timestamps as int64 microseconds since 1970 (UTC): what a source has is kept, and what is not read is named.

A number has no unit of its own. Its source defines it or, in a CSV file, it is the unit that most of the file's numbers
have by their range. A number of another range is refused, rather than taken for a time in 1970 or in the year 50,000.
"""

import collections
import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import polars as pl

MICROSECONDS = {'seconds': 10**6, 'milliseconds': 10**3, 'microseconds': 1}  # in one of the unit
DATES = 'ISO 8601'  # the unit of a file whose times are dates; its numbers, if it has any, are like 20240501
_RANGES = {'seconds': (0, 10**11), 'milliseconds': (10**11, 10**13), 'microseconds': (10**14, 10**17)}
_LENGTHS = {9, 10, 11, 12, 13, 16}  # of the usual numbers; what has eight digits may be a date
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def of_number(value: int, unit: str) -> int | None:
  """The microseconds of a number of seconds, milliseconds or microseconds since 1970.

  None if it is out of the range of its unit: seconds among milliseconds would be times in 1970.
  """
  low, high = _RANGES[unit]
  return value * MICROSECONDS[unit] if low <= value < high or value == 0 else None


def of_date(text: str) -> int | None:
  """The microseconds of a date or time in ISO 8601, in UTC unless it has a zone.

  Finer fractions are cut. None if the text is not in ISO 8601, or before 1970.
  """
  try:
    moment = datetime.datetime.fromisoformat(text)
  except ValueError:
    return None
  time = ((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)) - _EPOCH) // _MICROSECOND
  return time if time >= 0 else None


def of_text(text: str, unit: str) -> int | None:
  """The microseconds of a timestamp in a file whose numbers have this unit.

  Args:
    text: a number of the unit, or a date or time in ISO 8601 whatever the unit is.
    unit: a key of MICROSECONDS, or DATES.

  Returns:
    The microseconds since 1970; None for any other text, which `refusal` names.
  """
  low, high = _RANGES.get(unit, (0, 0))
  if text.isdigit() and len(text) in _LENGTHS and text.isascii() and low <= (value := int(text)) < high:
    return value * MICROSECONDS[unit]  # almost always, and fast
  parts = _number(text)
  if parts is None or unit == DATES == _unit(parts[0]):
    return of_date(text.strip())
  whole, fraction = parts
  if unit == DATES or _unit(whole) != unit and int(whole):  # 0 has any unit
    return None
  scale = MICROSECONDS[unit]
  time = int(whole) * scale
  if fraction:
    digits = len(str(scale)) - 1
    time += int(fraction[:digits].ljust(digits, '0') or 0)
  return time


def of_plain_numbers(texts: 'pl.Series', unit: str) -> 'pl.Series | None':
  """`of_text` of numbers of a unit, int64, where each is of the usual form; None where one is not."""
  import polars as pl

  low, high = _RANGES[unit]
  if texts.null_count() or not (texts.str.len_bytes().is_in(list(_LENGTHS)) & texts.str.contains(r'^[0-9]+$')).all():
    return None
  numbers = texts.cast(pl.Int64)
  return numbers * MICROSECONDS[unit] if ((numbers >= low) & (numbers < high)).all() else None


def refusal(text: str, unit: str) -> str:
  """The kind of problem of a text that `of_text` does not read."""
  parts = _number(text)
  if parts and _unit(parts[0]):
    return f'timestamp not in {unit}, unlike most'
  return 'timestamp in no known format: seconds, milliseconds or microseconds since 1970, or ISO 8601'


def unit_of(texts: Iterable[str]) -> str:
  """The unit that most of the numbers among `texts` have by their range: a key of MICROSECONDS, or DATES.

  It is DATES if there is no number, or if there are more dates than numbers: a few numbers among dates are no times.
  """
  counts: collections.Counter[str | None] = collections.Counter()
  dates = numbers = 0
  for text in texts:
    if parts := _number(text):
      counts[_unit(parts[0])] += 1
      numbers += 1
    else:
      dates += of_date(text.strip()) is not None
  units = [*MICROSECONDS, DATES]
  if dates > numbers or not any(counts[unit] for unit in units):
    return DATES
  return max(units, key=lambda unit: counts[unit])


def day_start(date: str) -> int:
  """The start of a day (YYYY-MM-DD, UTC) in microseconds since 1970."""
  return (datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC) - _EPOCH) // _MICROSECOND


def day_of(time: int) -> str:
  """The day (YYYY-MM-DD, UTC) of microseconds since 1970."""
  return (_EPOCH + time * _MICROSECOND).date().isoformat()


def _number(text: str) -> tuple[str, str] | None:
  """The digits before and after the decimal point; None if the text is not a plain number of at most 19 digits."""
  text = text.strip()
  whole, _, fraction = text.partition('.')
  if whole.isdigit() and len(whole) < 20 and text.isascii() and (not fraction or fraction.isdigit()):
    return whole, fraction
  return None


def _unit(whole: str) -> str | None:
  """The unit of a number by its range; None if it has none."""
  if len(whole) == 8 and of_date(whole) is not None:
    return DATES
  value = int(whole)
  for unit, (low, high) in _RANGES.items():
    if low <= value < high:
      return unit
  return None
