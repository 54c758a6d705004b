"""LETTER's folder of JSON files, as published with the paper (github.com/HonghuiBao2000/LETTER).

    NAME.inter.json  {user: [items in time order]}
    NAME.item.json   {item: {title, description, brand, categories, ...}}; the file and every field are optional

Items are 0 .. N - 1. Any error in a file is an InputError of one line: the file, the user or item, and what was
expected. `index_format.py` reads the folder's semantic IDs, `given_embeddings.py` its embeddings.
"""

import itertools
import pathlib
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import CATEGORY_SEPARATOR, MIN_LENGTH, TEXT_FIELDS, Dataset, Interactions
from letter_jax.data.json_files import encodable, read_by_item, read_object, shown
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def read_letter_folder(folder: pathlib.Path, name: str) -> Dataset:
  """Reads interactions and, if there is a NAME.item.json, texts.

  Args:
    folder: holds NAME.inter.json and, optionally, NAME.item.json.
    name: NAME; '' takes the only *.inter.json of the folder.

  Returns:
    The data set; users in the order of the file, items 0 .. N - 1, where N is the number of items in NAME.item.json
    or, without that file, the largest id plus 1 (`texts` is then None). Categories become one string, 'A > B > C'.

  Raises:
    InputError: a file or the folder is missing or malformed, an item id is out of range, or a user has fewer than 3
      items.
  """
  folder = pathlib.Path(folder)
  name = _find_name(folder, name)
  item_file = folder / f'{name}.item.json'
  texts = _read_texts(item_file) if item_file.exists() else None
  interactions = _read_interactions(folder / f'{name}.inter.json', None if texts is None else len(texts))
  return Dataset(name, interactions, texts)


def field_text(where: str, field: str, value: Any) -> str:
  """The value of an item's field as one line of text.

  Args:
    where: names the item, for messages.
    field: one of TEXT_FIELDS; the parts of 'categories' are joined by ' > '.
    value: a string, a list of strings, or None for an empty text.

  Raises:
    InputError: `value` is of any other type.
  """
  if value is None:
    return ''
  if isinstance(value, str):
    if field == 'categories':
      # In a string that separates with bare commas, 'Tapes, Adhesives & Sealants' is one category.
      parts = re.split(r',(?=\S)', value)
      value = CATEGORY_SEPARATOR.join(parts if len(parts) > 1 else value.split(', '))
  elif isinstance(value, list) and all(isinstance(part, str) for part in value):
    value = (CATEGORY_SEPARATOR if field == 'categories' else ' ').join(value)
  else:
    raise InputError(f'{where} has {field} {shown(value)}; expected a string or a list of strings')
  return encodable(' '.join(value.split()))


def _find_name(folder: pathlib.Path, name: str) -> str:
  if not folder.is_dir():
    raise InputError(f'{folder} is not a folder; expected (config.data.path) a folder with NAME.inter.json')
  names = sorted(file.name.removesuffix('.inter.json') for file in folder.glob('*.inter.json'))
  if name in names:
    return name
  if not name and len(names) == 1:
    return names[0]
  problem = f'{folder / name}.inter.json does not exist' if name else f'{folder} holds {len(names)} *.inter.json files'
  expected = (
    f'config.data.name to be one of {", ".join(names)}' if names else '(config.data.path) a folder with NAME.inter.json'
  )
  raise InputError(f'{problem}; expected {expected}')


def _read_interactions(path: pathlib.Path, num_items: int | None) -> Interactions:
  table = read_object(path)
  if not table:
    raise InputError(f'{path} holds no users; expected {{user: [items in time order]}}')
  for user, items in table.items():
    if not isinstance(items, list):
      raise InputError(f'{path}: user {shown(user)} has {shown(items)}; expected a list of item ids')
    if len(items) < MIN_LENGTH:
      raise InputError(
        f'{path}: user {shown(user)} has {counted(len(items), "item")}; expected at least {MIN_LENGTH} '
        '(training, validation, test)'
      )
  flat = list(itertools.chain.from_iterable(table.values()))
  expected = 'an integer from 0'
  if num_items is not None:
    expected += f' to {num_items - 1}, as in {path.name.removesuffix(".inter.json")}.item.json'
  if set(map(type, flat)) != {int}:  # not isinstance, which would accept bool
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
        f'an id below {limit} without a NAME.item.json ({counted(len(flat), "interaction")}; numbers start at 0)',
      )
    num_items = max(flat) + 1
  lengths = np.fromiter(map(len, table.values()), np.int64, len(table))
  offsets = ragged.offsets(lengths)
  return Interactions(np.array(flat, np.int32), offsets, num_items, tuple(table))


def _raise_first(
  path: pathlib.Path, table: dict[str, list], is_wrong: Callable[[Any], bool], expected: str
) -> NoReturn:
  user, position, item = next(
    (user, position, item) for user, items in table.items() for position, item in enumerate(items) if is_wrong(item)
  )
  raise InputError(f'{path}: user {shown(user)} has item id {shown(item)} at position {position}; expected {expected}')


def _read_texts(path: pathlib.Path) -> tuple[dict[str, str], ...]:
  items = read_by_item(path)
  if not items:
    raise InputError(f'{path} holds no items; expected {{item: {{title, description, brand, categories}}}}')
  texts = []
  for item, fields in enumerate(items):
    if not isinstance(fields, dict):
      raise InputError(f'{path}: item {item} is {shown(fields)}; expected an object with {", ".join(TEXT_FIELDS)}')
    texts.append({field: field_text(f'{path}: item {item}', field, fields.get(field)) for field in TEXT_FIELDS})
  return tuple(texts)
