"""Repeats: targets that the user had before. A ranking without the history can find none of them."""

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.splits import Examples


def repeated(whole: Examples) -> np.ndarray:
  """bool [N], whether each target stands in its history.

  Args:
    whole: N examples with whole histories (`Examples.whole_histories`).
  """
  lengths_N = whole.lengths
  same_E = whole.items[ragged.ranges(whole.start, lengths_N)] == np.repeat(whole.targets, lengths_N)
  return np.bincount(np.repeat(np.arange(len(whole)), lengths_N)[same_E], minlength=len(whole)) > 0


def repeat_share(whole: Examples) -> float:
  """The share of the targets that stand in their histories; 0 where there are no users."""
  return float(repeated(whole).mean()) if len(whole) else 0.0
