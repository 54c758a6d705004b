"""Embeddings that the user gives as an .npy file with one row per item, such as LETTER's NAME.emb.npy."""

import pathlib

import numpy as np

from letter_jax.data.json_files import check_file, shown
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def read_embeddings(path: pathlib.Path, num_items: int, meaning: str) -> np.ndarray:
  """Reads the rows of all items from an .npy file of any float dtype; pickled objects are not loaded.

  Args:
    path: the file.
    num_items: the number of rows that it must have; row i belongs to item i.
    meaning: what the rows are, for messages ('text embeddings').

  Returns:
    float32 [num_items, dim], all finite.

  Raises:
    InputError: the file does not exist or is not an .npy file; or the array has a wrong dtype or shape, or a number
      that is not finite in float32.
  """
  path = pathlib.Path(path)
  check_file(path)
  try:
    rows = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
    raise InputError(
      f'{path}: the {meaning} cannot be read ({shown(str(error))}); expected an .npy file with a 2-d array of floats'
    ) from error
  if not isinstance(rows, np.ndarray):
    rows.close()
    raise InputError(f'{path}: the {meaning} are an .npz archive; expected one .npy array [items, dim]')
  if rows.dtype.kind != 'f':
    raise InputError(f'{path}: the {meaning} have dtype {rows.dtype}; expected float16, float32 or float64')
  if rows.ndim != 2 or rows.shape[1] == 0:
    raise InputError(f'{path}: the {meaning} have shape {list(rows.shape)}; expected [{num_items} items, dim]')
  if len(rows) != num_items:
    expected = f'one for each of the {counted(num_items, "item")}'
    raise InputError(f'{path}: the {meaning} have {counted(len(rows), "row")}; expected {expected}')
  with np.errstate(over='ignore'):
    rows_NxD = np.ascontiguousarray(rows, dtype=np.float32)
  finite_NxD = np.isfinite(rows_NxD)
  if not finite_NxD.all():
    row, column = np.argwhere(~finite_NxD)[0]
    raise InputError(
      f'{path}: the {meaning} have {rows[row, column]} in row {row}, column {column} '
      f'({(~finite_NxD.all(axis=1)).sum()} such rows); expected numbers that are finite in float32'
    )
  return rows_NxD
