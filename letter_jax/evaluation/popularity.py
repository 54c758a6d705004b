"""The popularity baseline: every user is shown the items with the most training interactions."""

import numpy as np

from letter_jax.data import splits
from letter_jax.data.dataset import Windows
from letter_jax.evaluation import metrics, ranks


def training_counts(data: Windows) -> np.ndarray:
  """The number of training interactions of each item, int64 [items]."""
  counts_N = np.zeros(data.num_items, np.int64)
  for window in map(data.window, range(data.num_windows)):
    counts_N += np.bincount(window.items[splits.is_training(window)], minlength=data.num_items)
  return counts_N


def places(counts_N: np.ndarray, target_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """How many items have a larger count than each of B items, and how many the same (itself included), int64 [B]."""
  sorted_N = np.sort(counts_N)
  not_ahead_B = np.searchsorted(sorted_N, counts_N[target_B], side='right')
  return len(counts_N) - not_ahead_B, not_ahead_B - np.searchsorted(sorted_N, counts_N[target_B], side='left')


def popularity_metrics(
  counts_N: np.ndarray, target_B: np.ndarray, had_BxH: np.ndarray | None = None, ks: tuple[int, ...] = ranks.KS
) -> tuple[metrics.Sums, np.ndarray]:
  """Metrics of ranking all items by their counts; items with equal counts are tied.

  Args:
    counts_N: int64, as `training_counts` returns them.
    target_B: integer item ids, one target for each of B users.
    had_BxH: int32, distinct items that are taken out of each user's ranking, negative where there is none.
    ks: the cut-offs.

  Returns:
    The metrics, and the ranks int32 [3, B] as in `ranks.py`.
  """
  ahead_B, group_B = places(counts_N, target_B)
  found_B = all_B = np.ones(len(target_B), bool)
  if had_BxH is not None:
    had_count_BxH = np.where(had_BxH >= 0, counts_N[np.maximum(had_BxH, 0)], -1)
    ahead_B = ahead_B - (had_count_BxH > counts_N[target_B][:, None]).sum(axis=1)
    group_B = group_B - (had_count_BxH == counts_N[target_B][:, None]).sum(axis=1)
    found_B = ~(had_BxH == target_B[:, None]).any(axis=1)
  ranks_3xB = np.stack([ahead_B, group_B, found_B]).astype(np.int32)
  return metrics.expected_metrics(ranks_3xB[0], ranks_3xB[1], found_B, all_B, ks), ranks_3xB
