"""How far a metric could be off because other users might have been asked: percentile bootstrap over users.

A resample draws as many users as there are, with replacement. Users with equal gains are interchangeable, so how often
each distinct gain is drawn is all that matters, and that is multinomial: the draw is exact, and its cost grows with the
number of distinct gains (2 for Recall@k, k + 1 for NDCG@k without ties) where the number of users may be millions.

Shapes: U users, D distinct gains, R resamples.
"""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_ENTRIES_AT_ONCE = 2**22


def interval(gains_U: np.ndarray, seed: int) -> tuple[float, float]:
  """The 95% interval of the mean of `gains_U`, float [U], U >= 1; the same for the same seed."""
  # Rounded, or equal gains that were added up in another order would be counted as different ones.
  value_D, count_D = np.unique(np.round(np.asarray(gains_U, np.float64), 12), return_counts=True)
  users = int(count_D.sum())
  random = np.random.default_rng(seed)
  rows = max(_ENTRIES_AT_ONCE // len(value_D), 1)
  means_R = np.concatenate(
    [
      random.multinomial(users, count_D / users, size=min(rows, RESAMPLES - first)) @ value_D / users
      for first in range(0, RESAMPLES, rows)
    ]
  )
  low, high = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)


def paired_difference(gains_a_U: np.ndarray, gains_b_U: np.ndarray, seed: int) -> tuple[float, float, float]:
  """mean(a) - mean(b) and its 95% interval (difference, low, high), both of the same resampled users.

  Args:
    gains_a_U, gains_b_U: float [U]; entry u of both is of the same user with the same target.
  """
  gains_U = np.asarray(gains_a_U, np.float64) - np.asarray(gains_b_U, np.float64)
  return float(gains_U.mean()), *interval(gains_U, seed)
