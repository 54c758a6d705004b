"""Ranks of a rule that has something to say about a few items of each user, and ranks all others by popularity.

Nothing is as large as users times items. Shapes: B users, N items, H items that are taken out of a user's ranking.
"""

from typing import TYPE_CHECKING

import numpy as np

from letter_jax.evaluation import popularity

if TYPE_CHECKING:
  from scipy import sparse


def ranks_in_sparse_scores(
  scores_BxN: 'sparse.csr_array', counts_N: np.ndarray, target_B: np.ndarray, had_BxH: np.ndarray | None = None
) -> np.ndarray:
  """The ranks of the targets by score, then by popularity; items that are equal in both are tied.

  Args:
    scores_BxN: positive where it has an entry, in the order of the items; the other items have the score 0.
    counts_N: int64, the training interactions of each item.
    target_B: int, item ids.
    had_BxH: int32, distinct items that are taken out of each user's ranking, negative where there is none.

  Returns:
    int32 [3, B], as in `ranks.py`.
  """
  users, num_users = np.arange(len(target_B)), len(target_B)
  entry_user_E = np.repeat(users, np.diff(scores_BxN.indptr))
  key_E = entry_user_E * len(counts_N) + scores_BxN.indices  # ascending

  def scores_of(user_E: np.ndarray, item_E: np.ndarray) -> np.ndarray:
    key = user_E * len(counts_N) + item_E
    place = np.searchsorted(key_E, key)
    found = np.append(key_E, -1)[place] == key
    return np.where(found, np.append(scores_BxN.data, 0)[place], 0)

  count_B, score_B = counts_N[target_B], scores_of(users, target_B)

  def compared(user_E: np.ndarray, item_E: np.ndarray, score_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each user, how many of these items are ahead of the target, and how many are tied with it."""
    equal_E = score_E == score_B[user_E]
    ahead_E = (score_E > score_B[user_E]) | equal_E & (counts_N[item_E] > count_B[user_E])
    tied_E = equal_E & (counts_N[item_E] == count_B[user_E])
    ahead_B, tied_B = (np.bincount(user_E[chosen_E], minlength=num_users) for chosen_E in (ahead_E, tied_E))
    return ahead_B, tied_B

  ahead_B, group_B = compared(entry_user_E, scores_BxN.indices, scores_BxN.data)
  # A target without an entry is also compared with the items without one: the catalogue but those with an entry.
  popular_B, tied_B = popularity.places(counts_N, target_B)
  count_E = counts_N[scores_BxN.indices]
  popular_B = popular_B - np.bincount(entry_user_E[count_E > count_B[entry_user_E]], minlength=num_users)
  tied_B = tied_B - np.bincount(entry_user_E[count_E == count_B[entry_user_E]], minlength=num_users)
  ahead_B = ahead_B + np.where(score_B > 0, 0, popular_B)
  group_B = group_B + np.where(score_B > 0, 0, tied_B)
  found_B = np.ones(num_users, bool)
  if had_BxH is not None:
    user_E, place_E = np.nonzero(had_BxH >= 0)
    item_E = had_BxH[user_E, place_E]
    had_ahead_B, had_tied_B = compared(user_E, item_E, scores_of(user_E, item_E))
    ahead_B, group_B = ahead_B - had_ahead_B, group_B - had_tied_B
    found_B = ~(had_BxH == target_B[:, None]).any(axis=1)
  return np.stack([ahead_B, group_B, found_B]).astype(np.int32)
