"""Ranks of a rule that has something to say about a few items of each user, and ranks all others by popularity.

Nothing is as large as users times items. Shapes: B users, N items, H items that are taken out of a user's ranking.
"""

from typing import TYPE_CHECKING

import numpy as np

from letter_jax.evaluation import popularity

if TYPE_CHECKING:
  from scipy import sparse


def ranks_in_sparse_scores(
  scores_BxN: 'sparse.csr_array', counts_N: np.ndarray, target_B: np.ndarray, had_BxH: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The ranks of the targets by score, then by popularity; items that are equal in both are tied.

  Args:
    scores_BxN: positive where it has an entry, in the order of the items; the other items have the score 0.
    counts_N: int64, the training interactions of each item.
    target_B: int, item ids.
    had_BxH: int32, the distinct items of each user's history, negative where there is none.

  Returns:
    int32 [3, B], as in `ranks.py`, with the history in the ranking; and the same with it out of the ranking.
  """
  users, num_users = np.arange(len(target_B)), len(target_B)
  item_E, score_E = scores_BxN.indices, scores_BxN.data
  user_E = np.repeat(users, np.diff(scores_BxN.indptr))
  key_E = user_E * len(counts_N) + item_E  # ascending

  def scores_of(user_P: np.ndarray, item_P: np.ndarray) -> np.ndarray:
    """The scores of any pairs of a user and an item."""
    key_P = user_P * len(counts_N) + item_P
    if not len(key_E):
      return np.zeros(len(key_P), score_E.dtype)
    place_P = np.minimum(np.searchsorted(key_E, key_P), len(key_E) - 1)
    return np.where(key_E[place_P] == key_P, score_E[place_P], 0)

  def count(user_P: np.ndarray, chosen_P: np.ndarray) -> np.ndarray:
    return np.bincount(user_P[chosen_P], minlength=num_users)

  popular_B, score_B = counts_N[target_B], scores_of(users, target_B)

  def compared(user_P: np.ndarray, item_P: np.ndarray, score_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each user, how many of these items are ahead of the target, and how many are tied with it."""
    equal_P, more_P = score_P == score_B[user_P], counts_N[item_P] - popular_B[user_P]
    ahead_P = (score_P > score_B[user_P]) | equal_P & (more_P > 0)
    return count(user_P, ahead_P), count(user_P, equal_P & (more_P == 0))

  # A target without an entry is also compared with the items without one: the catalogue but those with an entry, which
  # are all ahead of it.
  ahead_B, group_B = popularity.places(counts_N, target_B)
  more_E = counts_N[item_E] - popular_B[user_E]
  ahead_B = ahead_B - count(user_E, more_E > 0) + np.diff(scores_BxN.indptr)
  group_B = group_B - count(user_E, more_E == 0)
  if (there_B := score_B > 0).any():
    scored_E = there_B[user_E]
    of_scored_B = compared(user_E[scored_E], item_E[scored_E], score_E[scored_E])
    ahead_B, group_B = (np.where(there_B, *both) for both in zip(of_scored_B, (ahead_B, group_B)))
  history_in = np.stack([ahead_B, group_B, np.ones(num_users)]).astype(np.int32)

  user_P, place_P = np.nonzero(had_BxH >= 0)
  item_P = had_BxH[user_P, place_P]
  had_ahead_B, had_tied_B = compared(user_P, item_P, scores_of(user_P, item_P))
  found_B = ~(had_BxH == target_B[:, None]).any(axis=1)
  return history_in, np.stack([ahead_B - had_ahead_B, group_B - had_tied_B, found_B]).astype(np.int32)
