"""Raw ids: the names of users and items in the source of a data set."""

from typing import Any


def is_raw_id(value: Any) -> bool:
  """Whether `value` is a valid raw id: a non-empty string that can be encoded as UTF-8."""
  if not isinstance(value, str) or not value:
    return False
  try:
    value.encode('utf-8')
  except UnicodeEncodeError:
    return False
  return True
