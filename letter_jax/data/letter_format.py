"""LETTER's folder of json and npy files, as published with the paper (github.com/HonghuiBao2000/LETTER).

    NAME.inter.json  {user: [items in time order]}
    NAME.item.json   {item: {title, description, brand, categories, ...}}, optional, every field too
    NAME.index.json  {item: ["<a_12>", "<b_3>", ...]}, semantic IDs
    NAME.emb.npy, NAME.cf.npy  one row per item

Items are 0 .. N - 1. Whatever is wrong in a file raises an InputError of one line: the file, the user or item, and
what was expected.
"""

import itertools
import json
import operator
import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import CATEGORY_SEPARATOR, MIN_LENGTH, TEXT_FIELDS, Dataset, Interactions
from letter_jax.system.errors import InputError

MAX_CODE = 2**20 - 1


def read_dataset(folder: pathlib.Path, name: str) -> Dataset:
  """Interactions and, if there is a NAME.item.json, texts.

  Args:
    folder: holds NAME.inter.json and, optionally, NAME.item.json.
    name: NAME; '' takes the only *.inter.json of the folder.

  Returns:
    The data set; users in the order of the file, items 0 .. N - 1 where N is the number of items of NAME.item.json
    and, without one, the largest id plus 1 (`texts` is then None). Categories become one string, 'A > B > C'.

  Raises:
    InputError: a file or folder that is missing or malformed, an item id out of range, a user with fewer than 3 items.
  """
  folder = pathlib.Path(folder)
  name = _find_name(folder, name)
  item_file = folder / f'{name}.item.json'
  texts = _read_texts(item_file) if item_file.exists() else None
  interactions = _read_interactions(folder / f'{name}.inter.json', None if texts is None else len(texts))
  return Dataset(name, interactions, texts)


def read_index(path: pathlib.Path, num_items: int) -> np.ndarray:
  """Semantic IDs from LETTER's index.json.

  Every item 0 .. num_items - 1 has the same number of tokens as item 0, token l being '<LETTER_CODE>' with
  `level_letter(l)` and a code of at most MAX_CODE.

  Returns:
    int32 [num_items, levels].
  """
  path = pathlib.Path(path)
  table = _read_object(path)
  ids = _item_ids(path, table)
  _check_complete(path, ids, num_items)
  tokens_N = list(map(table.__getitem__, map(str, range(num_items))))
  for item, tokens in enumerate(tokens_N):
    if not isinstance(tokens, list) or not tokens:
      raise InputError(f'{path}: item {item} has {_shown(tokens)}; expected a list of tokens such as "<a_12>"')
    if len(tokens) != len(tokens_N[0]):
      raise InputError(
        f'{path}: item {item} has {len(tokens)} tokens, item 0 has {len(tokens_N[0])}; expected as many for every item'
      )
  levels = len(tokens_N[0]) if tokens_N else 0
  codes_NxL = np.empty((num_items, levels), np.int32)
  for level in range(levels):
    codes_NxL[:, level] = _level_codes(path, level, [tokens[level] for tokens in tokens_N])
  return codes_NxL


def write_index(path: pathlib.Path, codes_NxL: np.ndarray) -> None:
  """Writes semantic IDs, int [items, levels], as LETTER's index.json, which `read_index` and LETTER's own code read."""
  lines = (f'"{item}": ' + json.dumps(tokens_of(codes)) for item, codes in enumerate(codes_NxL.tolist()))
  pathlib.Path(path).write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


def tokens_of(codes: Sequence[int]) -> list[str]:
  """An item's codes as in an index.json."""
  return [f'<{level_letter(level)}_{code}>' for level, code in enumerate(codes)]


def level_letter(level: int) -> str:
  """a .. z for levels 0 .. 25, then aa, ab, ..., az, ba, ... as the columns of a spreadsheet."""
  letters = ''
  level += 1
  while level:
    level, digit = divmod(level - 1, 26)
    letters = string.ascii_lowercase[digit] + letters
  return letters


def read_embeddings(path: pathlib.Path, num_items: int, meaning: str) -> np.ndarray:
  """Rows for all items from an .npy file of any float dtype; nothing pickled is loaded.

  Args:
    path: the file.
    num_items: rows it must have; row i belongs to item i.
    meaning: what the rows are, for messages ('text embeddings').

  Returns:
    float32 [num_items, dim], all finite.
  """
  path = pathlib.Path(path)
  _check_file(path)
  try:
    rows = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
    raise InputError(
      f'{path}: the {meaning} cannot be read ({_shown(str(error))}); expected an .npy file with a 2-d array of floats'
    ) from error
  if not isinstance(rows, np.ndarray):
    rows.close()
    raise InputError(f'{path}: the {meaning} are an .npz archive; expected one .npy array [items, dim]')
  if rows.dtype.kind != 'f':
    raise InputError(f'{path}: the {meaning} have dtype {rows.dtype}; expected float16, float32 or float64')
  if rows.ndim != 2 or rows.shape[1] == 0:
    raise InputError(f'{path}: the {meaning} have shape {list(rows.shape)}; expected [{num_items} items, dim]')
  if len(rows) != num_items:
    raise InputError(f'{path}: the {meaning} have {len(rows)} rows; expected one for each of the {num_items} items')
  with np.errstate(over='ignore'):
    rows_NxD = np.ascontiguousarray(rows, dtype=np.float32)
  finite_NxD = np.isfinite(rows_NxD)
  if not finite_NxD.all():
    row, column = np.argwhere(~finite_NxD)[0]
    raise InputError(
      f'{path}: the {meaning} have {rows[row, column]} in row {row}, column {column} '
      f'({(~finite_NxD.all(axis=1)).sum()} such rows); expected numbers finite in float32'
    )
  return rows_NxD


def _find_name(folder: pathlib.Path, name: str) -> str:
  if not folder.is_dir():
    raise InputError(f'{folder} is not a folder; expected (config.data.path) a folder with NAME.inter.json')
  found = sorted(file.name.removesuffix('.inter.json') for file in folder.glob('*.inter.json'))
  if name and name not in found:
    raise InputError(
      f'{folder / name}.inter.json does not exist; '
      + (
        f'names there (config.data.name): {", ".join(found)}'
        if found
        else 'expected (config.data.path) a folder with NAME.inter.json'
      )
    )
  if not name and len(found) != 1:
    raise InputError(
      f'{folder} holds {len(found)} *.inter.json files; '
      + (
        f'expected config.data.name to be one of {", ".join(found)}'
        if found
        else 'expected (config.data.path) a folder with NAME.inter.json'
      )
    )
  return name or found[0]


def _read_interactions(path: pathlib.Path, num_items: int | None) -> Interactions:
  table = _read_object(path)
  if not table:
    raise InputError(f'{path} holds no users; expected {{user: [items in time order]}}')
  for user, items in table.items():
    if not isinstance(items, list):
      raise InputError(f'{path}: user {_shown(user)} has {_shown(items)}; expected a list of item ids')
    if len(items) < MIN_LENGTH:
      raise InputError(
        f'{path}: user {_shown(user)} has {len(items)} items; expected at least {MIN_LENGTH} '
        '(training, validation, test)'
      )
  flat = list(itertools.chain.from_iterable(table.values()))
  expected = 'an integer from 0'
  if num_items is not None:
    expected += f' to {num_items - 1}, as in {path.name.removesuffix(".inter.json")}.item.json'
  if set(map(type, flat)) != {int}:  # bool is not int here
    _raise_first(path, table, lambda item: type(item) is not int, expected)
  if min(flat) < 0 or num_items is not None and max(flat) >= num_items:
    _raise_first(path, table, lambda item: item < 0 or num_items is not None and item >= num_items, expected)
  if num_items is None:
    limit = max(10_000, 10 * len(flat))
    if max(flat) >= limit:
      _raise_first(
        path,
        table,
        lambda item: item >= limit,
        f'an id below {limit} without a NAME.item.json ({len(flat)} interactions; items are numbered 0 .. N - 1)',
      )
    num_items = max(flat) + 1
  lengths = np.fromiter(map(len, table.values()), np.int64, len(table))
  offsets = ragged.offsets(lengths)
  return Interactions(np.array(flat, np.int32), offsets, num_items, tuple(table))


def _raise_first(path: pathlib.Path, table: dict[str, list], is_wrong, expected: str):
  user, place, item = next(
    (user, place, item) for user, items in table.items() for place, item in enumerate(items) if is_wrong(item)
  )
  raise InputError(f'{path}: user {_shown(user)} has item id {_shown(item)} at position {place}; expected {expected}')


def _read_texts(path: pathlib.Path) -> tuple[dict[str, str], ...]:
  table = _read_object(path)
  if not table:
    raise InputError(f'{path} holds no items; expected {{item: {{title, description, brand, categories}}}}')
  ids = _item_ids(path, table)
  _check_complete(path, ids, len(ids))
  texts = []
  for item in range(len(ids)):
    fields = table[str(item)]
    if not isinstance(fields, dict):
      raise InputError(f'{path}: item {item} is {_shown(fields)}; expected an object with {", ".join(TEXT_FIELDS)}')
    texts.append({field: field_text(f'{path}: item {item}', field, fields.get(field)) for field in TEXT_FIELDS})
  return tuple(texts)


def field_text(where: str, field: str, value) -> str:
  """One line of text of a field of an item; InputError, which begins with `where`, if it is none."""
  if value is None:
    return ''
  if isinstance(value, str):
    if field == 'categories':
      # 'Tapes, Adhesives & Sealants' is one category in a string that separates with commas alone.
      parts = re.split(r',(?=\S)', value)
      value = CATEGORY_SEPARATOR.join(parts if len(parts) > 1 else value.split(', '))
  elif isinstance(value, list) and all(isinstance(part, str) for part in value):
    value = (CATEGORY_SEPARATOR if field == 'categories' else ' ').join(value)
  else:
    raise InputError(f'{where} has {field} {_shown(value)}; expected a string or a list of strings')
  return _encodable(' '.join(value.split()))


def _level_codes(path: pathlib.Path, level: int, tokens: list) -> list[int]:
  letter = level_letter(level)
  pattern = re.compile(f'<{letter}_([0-9]{{1,7}})>')
  matches = [pattern.fullmatch(token) if isinstance(token, str) else None for token in tokens]
  codes = [int(match[1]) if match else -1 for match in matches]
  for item, code in enumerate(codes):
    if not 0 <= code <= MAX_CODE:
      raise InputError(
        f'{path}: item {item} has token {_shown(tokens[item])} at level {level}; '
        f'expected "<{letter}_CODE>" with CODE from 0 to {MAX_CODE}'
      )
  return codes


def _item_ids(path: pathlib.Path, table: dict[str, Any]) -> list[int]:
  for key in table:
    if not (key.isascii() and key.isdecimal() and len(key) < 11 and str(int(key)) == key):
      raise InputError(f'{path}: item id {_shown(key)} is not an integer; expected "0", "1", ...')
  return list(map(int, table))


def _check_complete(path: pathlib.Path, ids: list[int], num_items: int) -> None:
  missing = sorted(set(range(num_items)).difference(ids))
  if missing:
    raise InputError(
      f'{path}: item {missing[0]} is missing ({len(missing)} in all); expected {num_items} items, 0 to {num_items - 1}'
    )
  if len(ids) > num_items:
    raise InputError(
      f'{path}: item {max(ids)} does not exist ({len(ids)} items); expected {num_items} items, 0 to {num_items - 1}'
    )


def _check_file(path: pathlib.Path) -> None:
  if not path.is_file():
    raise InputError(f'{path} ' + ('is a folder; expected a file' if path.is_dir() else 'does not exist'))


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  _check_file(path)

  def without_duplicates(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
      keys = sorted(map(operator.itemgetter(0), pairs))
      twice = next(key for key, after in itertools.pairwise(keys) if key == after)
      raise InputError(f'{path}: key {_shown(twice)} is there twice; expected it once')
    return values

  try:
    table = json.loads(path.read_text(encoding='utf-8-sig'), object_pairs_hook=without_duplicates)
  except json.JSONDecodeError as error:
    raise InputError(f'{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}') from error
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(f'{path} cannot be read ({_shown(str(error))}); expected JSON in UTF-8') from error
  if not isinstance(table, dict):
    raise InputError(f'{path} holds a {type(table).__name__}; expected a JSON object')
  return table


def _encodable(text: str) -> str:
  # Half an emoji, as in titles cut at a fixed length, is valid JSON but not valid UTF-8.
  return text.encode('utf-8', 'replace').decode('utf-8')


def _shown(value) -> str:
  """A value on one line, short enough for a message."""
  text = value if isinstance(value, str) else json.dumps(value)
  text = _encodable(' '.join(text.split())) or '(empty)'
  text = text if len(text) <= 80 else text[:77] + '...'
  return f'"{text}"' if isinstance(value, str) else text
