"""The rows for the tokenizer: their scale, and what is kept of the dot products."""

import numpy as np
import pytest

from letter_jax.collaborative.embeddings import collaborative_rows


def embeddings(items, width):
  random = np.random.default_rng(0)
  return (random.normal(size=(items, width)) * np.geomspace(10, 0.1, width)).astype(np.float32)


def dot_products(rows):
  """Of all pairs of items, up to the scale."""
  products = rows @ rows.T
  return products / np.linalg.norm(products)


def test_collaborative_rows_are_scaled_and_keep_all_dot_products_where_there_is_room():
  rows = embeddings(30, 6)
  for dim in (6, 10):
    found = collaborative_rows(rows, dim)
    assert found.shape == (30, dim) and found.dtype == np.float32
    assert np.sqrt((found**2).sum(axis=1).mean()) == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_allclose(dot_products(found), dot_products(rows), atol=1e-6)
  assert (collaborative_rows(rows, 10)[:, 6:] == 0).all()


def test_fewer_dimensions_keep_the_dot_products_as_well_as_any_can():
  rows = embeddings(30, 6).astype(np.float64)
  found = collaborative_rows(rows, 2).astype(np.float64)
  assert found.shape == (30, 2)
  values, vectors = np.linalg.eigh(rows @ rows.T)
  best = vectors[:, -2:] * values[-2:] @ vectors[:, -2:].T  # Eckart-Young
  scale = (rows @ rows.T).ravel() @ (found @ found.T).ravel() / np.sum((found @ found.T) ** 2)
  np.testing.assert_allclose(scale * (found @ found.T), best, atol=1e-3 * np.abs(best).max())


def test_collaborative_rows_of_few_items_and_of_zeros():
  assert collaborative_rows(embeddings(3, 8), 5).shape == (3, 5)
  assert (collaborative_rows(np.zeros((4, 3), np.float32), 5) == 0).all()
