"""The baseline 'bought together': what other users had next to the last items of this user's history.

A pair of items counts 1 / d each time that a training sequence has them d places apart, up to WINDOW; so an item that
users have again counts with itself. The score of an item is the sum of its counts with the user's last LAST items, of
which the latest weighs 1, the one before 1/2, then 1/3, and so on. Counts are not divided by the items' own: on five
data sets, cosines were no better on the whole (docs/results.md).

All weights are multiples of 1 / (UNIT * LAST_UNIT) and kept as integers, so equal scores are equal on every machine.
Shapes: U users, N items, E training items, B users that are ranked at once.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.data import ragged
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import Examples

if TYPE_CHECKING:
  from scipy import sparse

WINDOW, LAST = 10, 5
NEIGHBOURS = 100  # of an item, the most frequent; as shops keep them
UNIT, LAST_UNIT = math.lcm(*range(1, WINDOW + 1)), math.lcm(*range(1, LAST + 1))

_PAIRS = 2**23  # counted at a time: about 300 MB


def neighbours(recent: Interactions, history_length: int, counts_N: np.ndarray) -> 'sparse.csr_array':
  """How often items stand together in the training sequences: int64 [N, N], in 1 / UNIT.

  A row has the NEIGHBOURS largest counts; of equal ones those of the most popular items, then the first ones.

  Args:
    recent: the users' latest interactions; the last two of each are for validation and test and do not count.
    history_length: how many of the latest training items of each user count.
    counts_N: int64, the training interactions of each item.
  """
  from scipy import sparse

  lengths_U = np.clip(recent.lengths - 2, 0, history_length)
  item_E = recent.items[ragged.ranges(recent.offsets[1:] - 2 - lengths_U, lengths_U)]
  place_E = ragged.positions(lengths_U)
  left_E = np.repeat(lengths_U, lengths_U) - 1 - place_E
  partners_E = np.minimum(place_E, WINDOW) + np.minimum(left_E, WINDOW)
  pairs_N = np.cumsum(np.bincount(item_E, partners_E, minlength=recent.num_items))
  part_N = (pairs_N // _PAIRS).astype(np.int64)
  order_E = np.argsort(item_E, kind='stable')  # each part visits its own places alone
  places_N = np.concatenate([[0], np.cumsum(np.bincount(item_E, minlength=recent.num_items))])
  parts = []
  for part in np.unique(part_N):
    first, last = np.searchsorted(part_N, (part, part + 1))
    places_P = order_E[places_N[first] : places_N[last]]
    counted = _pair_counts(item_E, place_E, left_E, places_P, int(first), int(last), recent.num_items)
    parts.append(_most_frequent(counted, counts_N))
  return sparse.csr_array(sparse.vstack(parts, format='csr'))


def _pair_counts(
  item_E: np.ndarray,
  place_E: np.ndarray,
  left_E: np.ndarray,
  places_P: np.ndarray,
  first: int,
  last: int,
  num_items: int,
) -> 'sparse.csr_array':
  """The rows first .. last - 1 of all counts.

  Args:
    item_E: the items of all sequences.
    place_E, left_E: how many items come before and after each in its sequence.
    places_P: where the items first .. last - 1 are in `item_E`.
    first, last, num_items: as above, and N.
  """
  from scipy import sparse

  rows, columns, weights = [], [], []
  for distance in range(1, WINDOW + 1):
    for step, there_E in ((distance, left_E), (-distance, place_E)):
      row_P = places_P[there_E[places_P] >= distance]
      rows.append(item_E[row_P] - first)
      columns.append(item_E[row_P + step])
      weights.append(np.full(len(row_P), UNIT // distance, np.int64))
  entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
  return sparse.csr_array(sparse.coo_array(entries, shape=(last - first, num_items)))


def _most_frequent(counted: 'sparse.csr_array', counts_N: np.ndarray) -> 'sparse.csr_array':
  """The counts without those that are not among the NEIGHBOURS largest of their row."""
  lengths_R = np.diff(counted.indptr)
  row_E = np.repeat(np.arange(len(lengths_R)), lengths_R)
  long_E = np.flatnonzero(lengths_R[row_E] > NEIGHBOURS)
  item_E = counted.indices[long_E]
  # Sorted by one number for count, popularity and place in the catalogue, which takes less time than three.
  priority_N = np.empty(len(counts_N), np.int64)
  priority_N[np.lexsort((-np.arange(len(counts_N)), counts_N))] = np.arange(len(counts_N))
  order_E = np.lexsort((-(counted.data[long_E] * len(counts_N) + priority_N[item_E]), row_E[long_E]))
  beyond_E = ragged.positions(lengths_R[lengths_R > NEIGHBOURS]) >= NEIGHBOURS
  counted.data[long_E[order_E[beyond_E]]] = 0
  counted.eliminate_zeros()
  return counted


def bought_together_scores(neighbours_NxN: 'sparse.csr_array', examples: Examples) -> 'sparse.csr_array':
  """int64 [B, N], in 1 / (UNIT * LAST_UNIT), for the items that stand together with the last ones of each history.

  Args:
    neighbours_NxN: as of `neighbours`.
    examples: of B users.
  """
  from scipy import sparse

  used_B = np.minimum(examples.lengths, LAST)
  item_E = examples.items[ragged.ranges(examples.end - used_B, used_B)]
  age_E = np.repeat(used_B, used_B) - ragged.positions(used_B)  # 1 for the latest
  shape = len(examples), neighbours_NxN.shape[0]
  last_BxN = sparse.csr_array((LAST_UNIT // age_E, item_E, ragged.offsets(used_B)), shape=shape)
  scores_BxN = last_BxN @ neighbours_NxN
  scores_BxN.sort_indices()
  return scores_BxN
