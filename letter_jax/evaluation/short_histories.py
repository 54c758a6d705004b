"""How well users with little or no history are served: the histories of test users, cut to their latest items.

Data sets for evaluation hold few such users (a 5-core none), a shop has many. The target is the test item, the items of
the history compete, and the users are a sample of the test users, so that figures of different lengths are comparable.
Nothing is compiled for these lengths alone: histories are padded to the width of a program that the test has used.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from letter_jax.data.splits import Examples, evenly_spaced
from letter_jax.decoding.user_search import ListSearch
from letter_jax.evaluation import ranks
from letter_jax.evaluation.first_purchases import FirstPurchases
from letter_jax.evaluation.list_evaluator import ListEvaluator

KEY = 'short_histories'  # in `metrics.json`
LENGTHS = (1, 2, 3)  # items that are left of a history, besides none
USERS = 2000  # test users in the sample
METRICS = ('recall@10', 'ndcg@10')
WHOLE = 'whole'  # the key of the figures with whole histories

Figures = dict[str, Any]


def evaluate_short_histories(
  search: ListSearch, params: Any, test: Examples, longest: int, ranks_3xU: np.ndarray, newcomers: FirstPurchases
) -> Figures:
  """Metrics of the sample by the number of items that are left of each history.

  Args:
    search, params: of a generator, or of two models.
    test: the test examples of all U users.
    longest: the most items that any user has had, as for the `ListEvaluator` of the test.
    ranks_3xU: int32, the ranks of the same models with whole histories, as in `ranks.py`.
    newcomers: answers where nothing is left.

  Returns:
    {'users': size of the sample, '0': metrics, '1': ..., '2': ..., '3': ..., 'whole': ...}; a history that is shorter
    than that is whole.
  """
  chosen = evenly_spaced(len(test), USERS)
  users = test.take(chosen)
  cut = _concatenated([dataclasses.replace(users, start=np.maximum(users.start, users.end - n)) for n in LENGTHS])
  widest = int(test.lengths.max())
  *_, cut_3xM = ListEvaluator(search, longest).lists(params, cut, None, 'evaluate short histories', widest)
  place_N = np.empty(len(newcomers.order_N), np.int32)
  place_N[newcomers.order_N] = np.arange(len(place_N))
  nothing_3xU = np.stack([place_N[users.targets], *np.ones((2, len(users)), np.int32)])
  by_length = {
    '0': nothing_3xU,
    **dict(zip(map(str, LENGTHS), np.split(cut_3xM, len(LENGTHS), axis=1))),
    WHOLE: ranks_3xU[:, chosen],
  }
  return {'users': len(chosen), **{length: _figures(of_length) for length, of_length in by_length.items()}}


def _figures(ranks_3xU: np.ndarray) -> Mapping[str, float]:
  return {metric: float(ranks.gains(ranks_3xU, metric).mean()) for metric in METRICS}


def _concatenated(parts: list[Examples]) -> Examples:
  """All examples of several parts that share their interactions."""
  starts, ends, users = zip(*((part.start, part.end, part.user) for part in parts))
  return Examples(parts[0].items, np.concatenate(starts), np.concatenate(ends), np.concatenate(users))
