"""The baseline 'buy again': every user is shown the items of their own history, and then the most popular ones.

The item that the user had most often comes first; of two that the user had equally often, the one had last.
"""

from typing import TYPE_CHECKING

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.splits import Examples

if TYPE_CHECKING:
  from scipy import sparse


def buy_again_scores(examples: Examples, num_items: int) -> 'sparse.csr_array':
  """int64 [B, num_items], positive for the items of each history, no two of a user alike.

  Args:
    examples: of B users, with histories as a model sees them.
    num_items: size of the catalogue.
  """
  from scipy import sparse

  lengths_B = examples.lengths
  user_E = np.repeat(np.arange(len(examples)), lengths_B)
  item_E = examples.items[ragged.ranges(examples.start, lengths_B)]
  pair_P, pair_E, times_P = np.unique(user_E * num_items + item_E, return_inverse=True, return_counts=True)
  last_P = np.zeros(len(pair_P), np.int64)
  np.maximum.at(last_P, pair_E, ragged.positions(lengths_B) + 1)
  score_P = times_P * (lengths_B.max(initial=0) + 1) + last_P
  offsets = ragged.offsets(np.bincount(pair_P // num_items, minlength=len(examples)))
  return sparse.csr_array((score_P, pair_P % num_items, offsets), shape=(len(examples), num_items))
