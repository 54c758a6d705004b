"""Checks of the arrays that a user hands to the tokenizer, each with an error of one line.

JAX itself would clamp an index or report a shape deep inside a compiled program.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted

COLLISIONS = ('resolve', 'reference')


def float_array(values: Any, meaning: str, axes: str) -> np.ndarray:
  """The values as a numpy array of their own dtype, once they are known to be finite floats.

  Args:
    values: numpy or JAX array, or nested sequences of floats.
    meaning: what the values are, for messages, in the plural ('text embeddings').
    axes: names of the expected axes, for messages ('items, columns'); none may be empty.

  Raises:
    InputError: values that are not floating point, have other axes, are empty, or are not finite in float32.
  """
  try:
    array = np.asarray(values)
  except ValueError as error:  # rows of different lengths
    raise InputError(f'{meaning} are not an array ({error}); expected floats [{axes}]') from error
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise InputError(f'{meaning} have dtype {array.dtype}; expected a floating-point dtype, such as float32')
  if array.ndim != axes.count(',') + 1 or 0 in array.shape:
    raise InputError(f'{meaning} have shape {list(array.shape)}; expected [{axes}], none of them 0')
  with np.errstate(over='ignore'):
    is_finite = np.isfinite(array.astype(np.float32, copy=False))
  if not is_finite.all():
    place = tuple(np.argwhere(~is_finite)[0].tolist())
    raise InputError(f'{meaning} have {array[place]} at {list(place)}; expected numbers that are finite in float32')
  return array


def text_embeddings(text_NxT: Any, columns: int | None = None) -> np.ndarray:
  """Text embeddings [items, columns], checked.

  Args:
    columns: number that the tokenizer was trained on; None: any.

  Raises:
    InputError: as `float_array`, or the wrong number of columns.
  """
  rows = float_array(text_NxT, 'text embeddings', 'items, columns')
  if columns is not None and rows.shape[1] != columns:
    raise InputError(f'text embeddings have {counted(rows.shape[1], "column")}; expected {columns}, as in the training')
  return rows


def collaborative_embeddings(collaborative_NxE: Any, items: int, columns: int | None = None) -> np.ndarray:
  """Collaborative embeddings, one row per item, checked.

  Args:
    items: N, number of text embeddings.
    columns: number of columns that is expected; None: any.

  Raises:
    InputError: as `float_array`, or the wrong number of rows or columns.
  """
  rows = float_array(collaborative_NxE, 'collaborative embeddings', 'items, columns')
  if len(rows) != items:
    raise InputError(
      f'collaborative embeddings have {counted(len(rows), "row")}; expected {items}, one per text embedding'
    )
  if columns is not None and rows.shape[1] != columns:
    raise InputError(
      f'collaborative embeddings have {counted(rows.shape[1], "column")}; expected latent_dim, {columns} '
      '(letter_jax.collaborative.embeddings.collaborative_rows makes such rows of others)'
    )
  return rows


def latents_and_codebooks(latent_Nxd: Any, codebooks_LxKxd: Any) -> tuple[np.ndarray, np.ndarray]:
  """Both as float32 numpy arrays, checked.

  Raises:
    InputError: as `float_array`, or the two have different widths.
  """
  latents = float_array(latent_Nxd, 'latents', 'items, columns')
  codebooks = float_array(codebooks_LxKxd, 'codebooks', 'levels, codes, columns')
  if latents.shape[1] != codebooks.shape[2]:
    raise InputError(
      f'latents have {counted(latents.shape[1], "column")}; expected {codebooks.shape[2]}, as the codebooks'
    )
  return latents.astype(np.float32, copy=False), codebooks.astype(np.float32, copy=False)


def semantic_ids(codes_NxL: Any, levels: int, codebook_size: int) -> np.ndarray:
  """Semantic IDs [items, L] as an integer numpy array, checked; there may be no items.

  Raises:
    InputError: codes that are not integers in 0..codebook_size-1, or the wrong number of levels.
  """
  codes = np.asarray(codes_NxL)
  if codes.dtype.kind not in 'iu' or codes.ndim != 2 or codes.shape[1] != levels:
    raise InputError(
      f'semantic IDs are {codes.dtype} of shape {list(codes.shape)}; expected integers [items, {levels} levels]'
    )
  if codes.size and not (codes.min() >= 0 and codes.max() < codebook_size):
    raise InputError(
      f'semantic IDs have codes from {codes.min()} to {codes.max()}; expected them between 0 and {codebook_size - 1}'
    )
  return codes


def collision_rule(collisions: str) -> None:
  """Raises InputError unless `collisions` is one of `COLLISIONS`."""
  if collisions not in COLLISIONS:
    raise InputError(f'collisions is {collisions!r}; expected {" or ".join(map(repr, COLLISIONS))}')
