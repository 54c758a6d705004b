"""A wrong array ends with one clear line, at each function that a user calls."""

import numpy as np
import pytest

from letter_jax.configuration import RQVAEConfig, TokenizerConfig
from letter_jax.system.errors import InputError
from letter_jax.tokenizer import checks
from letter_jax.tokenizer.assignment import assign_later_items, assign_semantic_ids
from letter_jax.tokenizer.training import train_tokenizer

TEXT_NxT = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
ROWS_Nxd = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
CODEBOOKS_LxKxd = np.random.default_rng(2).normal(size=(2, 4, 3)).astype(np.float32)
CONFIG = RQVAEConfig(latent_dim=3)


def with_value(array, place, value):
  changed = array.copy()
  changed[place] = value
  return changed


@pytest.mark.parametrize(
  'values, message',
  [
    (TEXT_NxT.astype(int), 'rows have dtype int64; expected a floating-point dtype'),
    (TEXT_NxT[0], r'rows have shape \[5\]; expected \[items, columns\]'),
    (TEXT_NxT[:0], r'rows have shape \[0, 5\]; expected .*none of them 0'),
    (TEXT_NxT[:, :0], r'rows have shape \[6, 0\]'),
    (with_value(TEXT_NxT, (2, 1), np.nan), r'rows have nan at \[2, 1\]; expected numbers that are finite'),
    (with_value(TEXT_NxT.astype(np.float64), (0, 3), 1e300), r'rows have 1e\+300 at \[0, 3\]'),
    ([[1.0], [1.0, 2.0]], 'rows are not an array .*expected floats'),
  ],
  ids=['integers', 'one axis', 'no rows', 'no columns', 'NaN', 'beyond float32', 'ragged'],
)
def test_arrays_that_are_not_finite_floats(values, message):
  with pytest.raises(InputError, match=message) as error:
    checks.float_array(values, 'rows', 'items, columns')
  assert '\n' not in str(error.value) and isinstance(error.value, ValueError)


def test_arrays_keep_their_values_and_dtype():
  for dtype in (np.float16, np.float32, np.float64):
    np.testing.assert_array_equal(checks.text_embeddings(TEXT_NxT.astype(dtype), 5), TEXT_NxT.astype(dtype))
    assert checks.text_embeddings(TEXT_NxT.astype(dtype)).dtype == dtype


@pytest.mark.parametrize(
  'text_NxT, rows_Nxd, message',
  [
    (TEXT_NxT, ROWS_Nxd[:5], 'collaborative embeddings have 5 rows; expected 6'),
    (TEXT_NxT, ROWS_Nxd[:, :2], 'collaborative embeddings have 2 columns; expected latent_dim, 3'),
    (with_value(TEXT_NxT, (0, 0), np.inf), ROWS_Nxd, 'text embeddings have inf'),
  ],
  ids=['rows', 'columns', 'infinite text'],
)
def test_training_refuses_rows_that_do_not_fit(tmp_path, text_NxT, rows_Nxd, message):
  with pytest.raises(InputError, match=message):
    train_tokenizer(TokenizerConfig(model=CONFIG), text_NxT, rows_Nxd, tmp_path, seed=0)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'latent_Nxd, codebooks_LxKxd, collisions, message',
  [
    (ROWS_Nxd, CODEBOOKS_LxKxd, 'refrence', "collisions is 'refrence'; expected 'resolve' or 'reference'"),
    (ROWS_Nxd[:, :2], CODEBOOKS_LxKxd, 'resolve', 'latents have 2 columns; expected 3'),
    (ROWS_Nxd, CODEBOOKS_LxKxd[0], 'resolve', r'codebooks have shape \[4, 3\]'),
    (with_value(ROWS_Nxd, (1, 0), np.nan), CODEBOOKS_LxKxd, 'resolve', 'latents have nan'),
  ],
  ids=['collisions', 'width', 'one codebook', 'NaN'],
)
def test_assignment_refuses_what_it_cannot_use(latent_Nxd, codebooks_LxKxd, collisions, message):
  with pytest.raises(InputError, match=message):
    assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, collisions)


@pytest.mark.parametrize(
  'taken_NxL, message',
  [
    (np.zeros((3, 1), int), r'semantic IDs are int64 of shape \[3, 1\]; expected integers \[items, 2 levels\]'),
    (np.zeros((3, 2)), 'semantic IDs are float64'),
    (np.array([[0, 4]]), 'codes from 0 to 4; expected them between 0 and 3'),
  ],
  ids=['levels', 'floats', 'codes'],
)
def test_taken_ids_are_those_of_the_codebooks(taken_NxL, message):
  with pytest.raises(InputError, match=message):
    assign_later_items(ROWS_Nxd, CODEBOOKS_LxKxd, taken_NxL)
