"""Reads JSON files strictly: an error is one line that names the file, the key and what was expected."""

import itertools
import json
import operator
import pathlib
from typing import Any

from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object in UTF-8, with or without a byte order mark.

  Raises:
    InputError: the file does not exist, is not JSON or not an object, or has a key twice.
  """
  check_file(path)

  def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
      keys = sorted(map(operator.itemgetter(0), pairs))
      duplicate = next(key for key, following in itertools.pairwise(keys) if key == following)
      raise InputError(f'{path}: key {shown(duplicate)} occurs twice; expected it once')
    return values

  try:
    table = json.loads(path.read_text(encoding='utf-8-sig'), object_pairs_hook=without_duplicates)
  except json.JSONDecodeError as error:
    raise InputError(
      f'{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; expected a JSON object'
    ) from error
  except InputError:
    raise
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path} cannot be read ({shown(str(error))}); expected JSON in UTF-8') from error
  if not isinstance(table, dict):
    raise InputError(f'{path} holds a {type(table).__name__}; expected a JSON object')
  return table


def read_by_item(path: pathlib.Path, num_items: int | None = None) -> list[Any]:
  """Reads a JSON object whose keys are the items "0", "1", ..., in any order.

  Args:
    path: the file.
    num_items: the number of items that it must have; None accepts any.

  Returns:
    The values in the order of the items.

  Raises:
    InputError: as `read_object`; or a key is not an item, or an item is missing.
  """
  table = read_object(path)
  for key in table:
    if not (key.isascii() and key.isdecimal() and len(key) < 11 and str(int(key)) == key):
      raise InputError(f'{path}: item id {shown(key)} is not an integer; expected "0", "1", ...')
  num_items = len(table) if num_items is None else num_items
  expected = f'expected {counted(num_items, "item")}, 0 to {num_items - 1}'
  missing = sorted(set(range(num_items)).difference(map(int, table)))
  if missing:
    raise InputError(f'{path}: item {missing[0]} is missing ({len(missing)} in all); {expected}')
  if len(table) > num_items:
    raise InputError(f'{path}: item {max(map(int, table))} does not exist ({counted(len(table), "item")}); {expected}')
  return [table[str(item)] for item in range(num_items)]


def check_file(path: pathlib.Path) -> None:
  """Raises InputError if `path` is a folder or does not exist."""
  if not path.is_file():
    raise InputError(f'{path} ' + ('is a folder' if path.is_dir() else 'does not exist') + '; expected a file')


def encodable(text: str) -> str:
  """The text with '?' for characters that UTF-8 cannot encode.

  Half of an emoji, as in titles truncated at a fixed length, is valid JSON but cannot be encoded.
  """
  return text.encode('utf-8', 'replace').decode('utf-8')


def shown(value: Any) -> str:
  """A JSON value on one line, short enough for a message."""
  text = value if isinstance(value, str) else json.dumps(value)
  text = encodable(' '.join(text.split())) or '(empty)'
  text = text if len(text) <= 80 else text[:77] + '...'
  return f'"{text}"' if isinstance(value, str) else text
