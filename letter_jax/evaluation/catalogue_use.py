"""How much of the catalogue the lists of all users together use, and how unevenly.

A recommender may be right often and show everybody the same few items. Shapes: U users, K items of a list, N items.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class CatalogueUse:
  """How the places of all lists are distributed over the items.

  Attributes:
    items: how many different items stand in any list.
    coverage: the share of the catalogue that this is.
    top_share: the share of all places that the most recommended hundredth of the items takes (at least one item).
    gini: the Gini coefficient of the places of the items: 0 where all have as many, nearly 1 where one item has all.
  """

  items: int
  coverage: float
  top_share: float
  gini: float


def catalogue_use(items_UxK: np.ndarray, num_items: int) -> CatalogueUse:
  """The use of the catalogue by lists.

  Args:
    items_UxK: int, the items of each user's list; negative where there is none.
    num_items: N, at least 1.
  """
  counts_N = np.sort(np.bincount(items_UxK[items_UxK >= 0], minlength=num_items))
  total, used = int(counts_N.sum()), int(np.count_nonzero(counts_N))
  if not total:
    return CatalogueUse(0, 0.0, 0.0, 0.0)
  top = -(-num_items // 100)
  # The mean absolute difference of two items, by their ranks: sum of (2 i - N - 1) x_i / (N sum of x_i).
  rank_N = 2 * np.arange(1, num_items + 1) - num_items - 1
  gini = float((rank_N * counts_N).sum() / (num_items * total))
  return CatalogueUse(used, used / num_items, float(counts_N[-top:].sum() / total), gini)
