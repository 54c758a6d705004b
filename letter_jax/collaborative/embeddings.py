"""Collaborative rows for the tokenizer, from the item embeddings of any model."""

import numpy as np


def collaborative_rows(item_embeddings_NxE: np.ndarray, dim: int) -> np.ndarray:
  """Float32 [N, dim]: item embeddings with the width and scale that the contrastive term expects.

  Wider embeddings are projected on their leading singular directions, which keep the dot products best (Eckart-Young);
  narrower ones are padded with zeros. All rows are multiplied by one scalar, so that the root mean square of their
  lengths is 0.3, that of the rows that LETTER's authors trained for Beauty (BCE): alpha then means the same whatever
  loss and width the rows come from.

  Args:
    item_embeddings_NxE: floats, of any scale; rows of zeros only stay zeros.
    dim: `latent_dim` of the tokenizer.
  """
  rows = np.asarray(item_embeddings_NxE, np.float64)
  if rows.shape[1] > dim:
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    rows = rows @ directions[:dim].T
  rows = np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))
  scale = 0.3 / max(np.sqrt((rows**2).sum(axis=1).mean()), 1e-12)
  return (rows * scale).astype(np.float32)
