"""The two protocols of a ranking: items of the user's history compete ('history in'), or are taken out of it.

Published figures differ in this, and not by a constant: where users never have an item again, taking the history out
can only help; where they do, it loses those targets. A figure means nothing without its protocol.
"""

import numpy as np

from letter_jax.data.splits import PAD_ITEM, Examples
from letter_jax.ops.rounding import next_power_of_two


def excluded_items(whole: Examples, width: int = 0) -> np.ndarray:
  """int32 [N, H], the distinct items of each history, and PAD_ITEM elsewhere.

  Args:
    whole: examples with whole histories (`Examples.whole_histories`).
    width: H, at least the longest history; 0 for the next power of two.
  """
  had_NxH = np.sort(whole.histories(width or next_power_of_two(int(whole.lengths.max(initial=1)))), axis=1)
  again_NxH = np.zeros(had_NxH.shape, bool)
  again_NxH[:, 1:] = had_NxH[:, 1:] == had_NxH[:, :-1]
  return np.where(again_NxH, PAD_ITEM, had_NxH)
