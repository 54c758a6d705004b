"""Matching what comes from outside a run to its catalogue: by raw id where it carries raw ids, else by position.

An array file NAME.npy with one row per item may have NAME.ids.json next to it, a JSON list with the raw id of every
row. Runs write both; rows that one run made for some catalogue then fit the catalogue of another. Where the data of a
run has no raw ids, the file says so (null), and its rows are matched by position like those without a file.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from letter_jax.data.given_embeddings import read_embeddings
from letter_jax.data.raw_ids import as_raw_id
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

_SHOWN = 3  # ids that an error message lists


def ids_file(path: pathlib.Path) -> pathlib.Path:
  """The file with the raw ids of the rows of an .npy file."""
  return path.with_suffix('.ids.json')


def write_rows(path: pathlib.Path, rows_NxD: np.ndarray, raw_ids: Sequence[str] | None) -> None:
  """Writes rows as .npy and their raw ids (null where the data has none) next to them."""
  artifacts.write_json(ids_file(path), None if raw_ids is None else list(raw_ids))
  artifacts.write_npy(path, rows_NxD)


def read_rows(
  path: pathlib.Path, raw_ids: Sequence[str] | None, num_items: int, meaning: str
) -> tuple[np.ndarray, bool]:
  """The given rows of a catalogue's items, in the order of the catalogue.

  Args:
    path: an .npy file of floats.
    raw_ids: of the catalogue; None where the data has none.
    num_items: N.
    meaning: what the rows are, for messages ('text embeddings').

  Returns:
    float32 [N, D], all finite, and whether the rows were matched by raw id.

  Raises:
    InputError: a file that is missing or malformed, or made for a different catalogue.
  """
  given = _read_ids(ids_file(path)) if ids_file(path).is_file() else None
  if given is None:
    return read_embeddings(path, num_items, meaning), False
  order_N = match(raw_ids, given, ids_file(path))
  return read_embeddings(path, len(given), f'{meaning} with the ids of {ids_file(path).name}')[order_N], True


def match(raw_ids: Sequence[str] | None, given: Sequence[str], source: pathlib.Path) -> np.ndarray:
  """int64 [N]: for each item of the catalogue, the row of `given` that has its raw id.

  Rows of items that the catalogue does not have are ignored. Ids are compared in their normal form.

  Raises:
    InputError: the data has no raw ids; an item of the catalogue has no row; an id has several.
  """
  if raw_ids is None:
    raise InputError(
      f'{source} was made for items with raw ids such as {given[0]!r}, and the items of the data have none; expected '
      'data with raw ids, or a file without them, which is matched by position'
    )
  catalogue, given = ([as_raw_id(raw_id) or raw_id for raw_id in ids] for ids in (raw_ids, given))
  row_of = {raw_id: row for row, raw_id in enumerate(given)}
  if len(row_of) < len(given):
    repeated = next(raw_id for row, raw_id in enumerate(given) if row_of[raw_id] != row)
    raise InputError(f'{source}: id {repeated!r} is listed more than once; expected one row per item')
  missing = [raw_id for raw_id in catalogue if raw_id not in row_of]
  if missing:
    verb = 'is' if len(missing) == 1 else 'are'
    raise InputError(
      f'{source} was made for a different catalogue: {len(missing):,} of the {counted(len(catalogue), "item")} of the '
      f'data {verb} not in it, such as {", ".join(map(repr, missing[:_SHOWN]))} (its ids are such as '
      f'{", ".join(map(repr, given[:_SHOWN]))}); expected a row for every item'
    )
  return np.array([row_of[raw_id] for raw_id in catalogue], np.int64)


def _read_ids(path: pathlib.Path) -> list[str] | None:
  """The raw ids; None where the file says that there are none."""
  expected = 'expected a JSON list with the raw id of every row, or null'
  try:
    ids = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise InputError(f'{path} cannot be read ({error}); {expected}') from error
  if ids is None:
    return None
  if not isinstance(ids, list) or not ids or not all(isinstance(raw_id, str) for raw_id in ids):
    raise InputError(f'{path} is not a list of strings; {expected}')
  return ids
