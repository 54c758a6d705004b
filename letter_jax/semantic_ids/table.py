"""The table of semantic IDs on disk: a CSV file with the raw id of every item and its codes."""

import collections
import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from letter_jax.data.index_format import MAX_CODE
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

TABLE, INDEX = 'semantic_ids.csv', 'index.json'  # the table, and LETTER's file next to it


def write(path: pathlib.Path, raw_ids: Sequence[str] | None, codes_NxL: np.ndarray) -> None:
  """Writes the columns id, code_1, ..., code_L; where the data has no raw ids, `position` instead of `id`.

  Raises:
    InputError: there is not one raw id for each item, or two are equal.
  """
  if raw_ids is not None and len(raw_ids) != len(codes_NxL):
    raise InputError(f'{len(raw_ids):,} raw ids for {len(codes_NxL):,} semantic IDs; expected one for each')
  if raw_ids is not None and len(set(raw_ids)) < len(raw_ids):
    (twice, _), *_ = collections.Counter(raw_ids).most_common(1)
    raise InputError(f'the raw id {twice!r} stands twice; expected each once')

  def write_rows(temporary: pathlib.Path) -> None:
    first, names = ('position', map(str, range(len(codes_NxL)))) if raw_ids is None else ('id', iter(raw_ids))
    with temporary.open('w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file)
      writer.writerow([first, *_code_columns(codes_NxL.shape[1])])
      writer.writerows([name, *codes] for name, codes in zip(names, codes_NxL.tolist(), strict=True))

  artifacts.write(path, write_rows)


def read(path: pathlib.Path) -> tuple[list[str] | None, np.ndarray]:
  """Raw ids, None where the table has positions, and codes int32 [M, L].

  Raises:
    InputError: the file does not exist or is malformed.
  """
  expected = f'expected the columns id, code_1, ..., code_L with an id and L codes from 0 to {MAX_CODE} in every row'
  names, rows = [], []
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      header = next(reader, [])
      if len(header) < 2 or header[0] not in ('id', 'position') or header[1:] != _code_columns(len(header) - 1):
        raise InputError(f'{path}:1 is {",".join(header)[:80]!r}; {expected}')
      for row in reader:
        if not row:  # a blank line
          continue
        if len(row) != len(header) or not row[0] or not all(map(_is_code, row[1:])):
          raise InputError(f'{path}:{reader.line_num} is {",".join(row)[:80]!r}; {expected}')
        names.append(row[0])
        rows.append([int(code) for code in row[1:]])
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path} cannot be read ({error}); {expected}') from error
  if not rows:
    raise InputError(f'{path} has no rows; {expected}')
  if header[0] == 'id':
    return names, np.array(rows, np.int32)
  if names != list(map(str, range(len(names)))):
    raise InputError(
      f'{path} has positions that are not 0, 1, 2, ...; expected its rows in the order they were written'
    )
  return None, np.array(rows, np.int32)


def _code_columns(levels: int) -> list[str]:
  return [f'code_{level + 1}' for level in range(levels)]


def _is_code(text: str) -> bool:
  return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_CODE)) and int(text) <= MAX_CODE
