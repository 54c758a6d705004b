"""The popularity baseline: everybody is shown the items with the most training interactions."""

import numpy as np

from letter_jax.data.dataset import Interactions
from letter_jax.evaluation import metrics


def training_counts(data: Interactions) -> np.ndarray:
  """int64 [items], interactions of each item without the last two of every user (its validation and its test)."""
  place = np.arange(len(data.items)) - np.repeat(data.offsets[:-1], data.lengths)
  is_training = place < np.repeat(data.lengths - 2, data.lengths)
  return np.bincount(data.items[is_training], minlength=data.num_items)


def popularity_metrics(counts_N: np.ndarray, target_B: np.ndarray, ks: tuple[int, ...] = metrics.KS) -> metrics.Sums:
  """Metrics of ranking all items by their counts for each of B targets; items with equal counts share a place."""
  sorted_N = np.sort(counts_N)
  not_ahead_B = np.searchsorted(sorted_N, counts_N[target_B], side='right')
  ahead_B = len(counts_N) - not_ahead_B
  group_B = not_ahead_B - np.searchsorted(sorted_N, counts_N[target_B], side='left')
  everybody_B = np.ones(len(target_B), bool)
  return metrics.expected_metrics(ahead_B.astype(np.int32), group_B.astype(np.int32), everybody_B, everybody_B, ks)
