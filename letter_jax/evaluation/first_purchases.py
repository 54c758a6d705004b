"""The popularity of first purchases: what a user is shown of whom no item is known.

A generator has never seen an empty history in its training, so what it says of one is noise. People who come for the
first time do not buy what is popular with everybody: the items are ranked by how often they were the first of a user,
in the training data, and then by all training interactions.
"""

import dataclasses
import functools

import numpy as np

from letter_jax.data import splits
from letter_jax.data.dataset import Windows


def count_first_purchases(data: Windows) -> np.ndarray:
  """int64 [2, items]: how often each item is the first training interaction of a user, and any of them."""
  counts_2xN = np.zeros((2, data.num_items), np.int64)
  for window in map(data.window, range(data.num_windows)):
    training_E = splits.is_training(window)
    first_U = window.offsets[:-1][window.lengths > 0]
    first_E = np.zeros(len(window.items), bool)
    first_E[first_U] = True
    for count_N, chosen_E in zip(counts_2xN, (training_E & first_E, training_E)):
      count_N += np.bincount(window.items[chosen_E], minlength=data.num_items)
  return counts_2xN


@dataclasses.dataclass(frozen=True, eq=False)
class FirstPurchases:
  """A ranking of N items that is the same for every user.

  Attributes:
    counts_2xN: int64, as of `count_first_purchases`.
  """

  counts_2xN: np.ndarray

  @functools.cached_property
  def order_N(self) -> np.ndarray:
    """int32, the items, the best first; equal ones in the order of the catalogue."""
    first_N, all_N = self.counts_2xN
    return np.lexsort((-all_N, -first_N)).astype(np.int32)

  @functools.cached_property
  def scores_N(self) -> np.ndarray:
    """float32, log((count + 1) / (users + N)), a log-likelihood like the scores of a generator."""
    first_N = self.counts_2xN[0]
    return np.log((first_N + 1) / (first_N.sum() + len(first_N))).astype(np.float32)

  def best(self, allowed_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the allowed items (bool [N]): int32 and float32 [k]; -1 and -inf where there are fewer."""
    found = self.order_N[allowed_N[self.order_N]][:k]
    items_K, scores_K = np.full(k, -1, np.int32), np.full(k, -np.inf, np.float32)
    items_K[: len(found)], scores_K[: len(found)] = found, self.scores_N[found]
    return items_K, scores_K

  def extended(self, more: int) -> 'FirstPurchases':
    """With as many items after the others, which nobody has bought."""
    return FirstPurchases(np.pad(self.counts_2xN, ((0, 0), (0, more))))
