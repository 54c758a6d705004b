"""The collaborative rows that the tokenizer aligns with, whichever model's item embeddings they come from."""

import numpy as np


def collaborative_rows(item_embeddings_NxE: np.ndarray, dim: int) -> np.ndarray:
  """Float32 [N, dim]: the item embeddings turned to `dim` dimensions and the scale that the contrastive term expects.

  Fewer dimensions than trained: the leading singular directions, which keep the dot products best (Eckart-Young); more:
  zeros. Rows are divided by one scalar, so that they are of length 0.3 in the root mean square, as the rows that
  LETTER's authors trained for Beauty (BCE): alpha means the same whatever loss and width made the rows.
  """
  rows = np.asarray(item_embeddings_NxE, np.float64)
  if rows.shape[1] > dim:
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    rows = rows @ directions[:dim].T
  rows = np.pad(rows, ((0, 0), (0, dim - rows.shape[1])))
  scale = 0.3 / max(np.sqrt((rows**2).sum(axis=1).mean()), 1e-12)
  return (rows * scale).astype(np.float32)
