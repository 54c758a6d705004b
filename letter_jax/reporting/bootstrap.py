"""Confidence intervals of a metric over the choice of test users: the percentile bootstrap.

A resample draws as many users as there are, with replacement. Users with equal gains are interchangeable, so a resample
is determined by how often it draws each distinct gain, and these counts are multinomial. Drawing the counts is exact,
and its cost grows with the number of distinct gains (2 for Recall@k, k + 1 for NDCG@k without ties) rather than with
the number of users, which may be in the millions.

Shapes: U users, D distinct gains, R resamples.
"""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_ENTRIES_AT_ONCE = 2**22


def interval(gains_U: np.ndarray, seed: int) -> tuple[float, float]:
  """The 95% interval (low, high) of the mean of `gains_U`, float [U], U >= 1; deterministic given `seed`."""
  # Rounded, so that equal gains that were summed in a different order count as equal.
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
  """mean(a) - mean(b) and its 95% interval, (difference, low, high); a resample draws the same users for both.

  Args:
    gains_a_U: float [U].
    gains_b_U: float [U]; entry u is for the same user and target as in `gains_a_U`.
    seed: of the bootstrap.
  """
  gains_U = np.asarray(gains_a_U, np.float64) - np.asarray(gains_b_U, np.float64)
  return float(gains_U.mean()), *interval(gains_U, seed)
