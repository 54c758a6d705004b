"""Raw ids: the names of users and items in the source of a data set, in one normal form wherever they are read."""

import unicodedata
from typing import Any

# What `str.strip` removes, and two characters without width that spreadsheets and web pages leave around a text.
BLANKS = ''.join(filter(str.isspace, map(chr, range(0x3001)))) + '\u200b\ufeff'


def as_raw_id(value: Any) -> str | None:
  """A raw id in its normal form: without surrounding blanks, in Unicode's form NFC.

  Returns:
    None where `value` is not a raw id: not a string, nothing but blanks, or not encodable as UTF-8.
  """
  if not isinstance(value, str):
    return None
  if value.isascii():
    return value.strip() or None
  raw_id = unicodedata.normalize('NFC', value.strip(BLANKS))
  try:
    raw_id.encode('utf-8')
  except UnicodeEncodeError:
    return None
  return raw_id or None
