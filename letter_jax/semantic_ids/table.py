"""The table of semantic IDs on disk: a CSV file with the raw id of every item and its codes."""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from letter_jax.data.index_format import MAX_CODE
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

TABLE = 'semantic_ids.csv'


def write(path: pathlib.Path, raw_ids: Sequence[str], codes_NxL: np.ndarray) -> None:
  """Writes the columns id, code_1, ..., code_L."""

  def write_rows(temporary: pathlib.Path) -> None:
    with temporary.open('w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(['id', *(f'code_{level + 1}' for level in range(codes_NxL.shape[1]))])
      writer.writerows([raw_id, *codes] for raw_id, codes in zip(raw_ids, codes_NxL.tolist(), strict=True))

  artifacts.write(path, write_rows)


def read(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
  """Raw ids, and codes int32 [M, L]; InputError where the file does not exist or is malformed."""
  expected = 'expected the columns id, code_1, ..., code_L with an id and L codes from 0 in every row'
  ids, rows = [], []
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      header = next(reader, [])
      levels = len(header) - 1
      if levels < 1 or header != ['id', *(f'code_{level + 1}' for level in range(levels))]:
        raise InputError(f'{path}:1 is {",".join(header)[:80]!r}; {expected}')
      for row in reader:
        codes = row[1:]
        if len(codes) != levels or not row[0] or not all(code.isascii() and code.isdecimal() for code in codes):
          raise InputError(f'{path}:{reader.line_num} is {",".join(row)[:80]!r}; {expected}')
        ids.append(row[0])
        rows.append([int(code) for code in codes])
    if not rows:
      raise InputError(f'{path} has no rows; {expected}')
    if max(map(max, rows)) > MAX_CODE:
      raise InputError(f'{path} has a code above {MAX_CODE}; {expected}')
    return ids, np.array(rows, np.int32)
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path} cannot be read ({error}); {expected}') from error
