"""Statistics of a set of semantic IDs: how many codes it uses, how evenly, and how many items collide.

Shapes: N items, L levels, K codes per level. Everything here is numpy on the host.
"""

from typing import Any

import numpy as np


def diagnose(codes_NxL: np.ndarray, codebook_size: int) -> dict[str, Any]:
  """Use of the codes at each level, and collisions.

  Args:
    codes_NxL: integers in 0..K-1, N >= 1.
    codebook_size: K.

  Returns:
    `codes_used`: codes used by at least one item, by level; `perplexity`: exp of the entropy of the codes, by level
    (K when all are used equally); `collision_rate`: 1 - distinct IDs / items, which is the share of items that are not
    the first with their ID; `largest_group`: items of the most frequent ID.
  """
  codes_NxL = np.asarray(codes_NxL)
  counts_LxK = np.stack([np.bincount(codes_N, minlength=codebook_size) for codes_N in codes_NxL.T])
  share_LxK = counts_LxK / len(codes_NxL)
  entropy_L = -np.sum(share_LxK * np.log(np.where(share_LxK > 0, share_LxK, 1.0)), axis=1)
  sizes = np.bincount(id_groups(codes_NxL))
  return {
    'codes_used': np.count_nonzero(counts_LxK, axis=1).tolist(),
    'perplexity': np.exp(entropy_L).tolist(),
    'collision_rate': 1 - len(sizes) / len(codes_NxL),
    'largest_group': int(sizes.max()),
  }


def id_groups(codes_NxL: np.ndarray) -> np.ndarray:
  """Group number of every item, int64 [N]: two items have the same number exactly when they share all codes.

  Level by level, so that numbers stay below N * K where K**L would overflow.
  """
  group_N = np.zeros(len(codes_NxL), np.int64)
  for codes_N in np.asarray(codes_NxL, np.int64).T:
    group_N = np.unique(group_N * (codes_N.max(initial=0) + 1) + codes_N, return_inverse=True)[1]
  return group_N
