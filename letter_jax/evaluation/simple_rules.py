"""What any shop would try before it trains a model, in both protocols (`history.py`): bought together, and buy again.

Popularity, the third rule, needs nothing of a user and has its own module. Users are ranked a few thousand at a time.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from letter_jax.data.splits import Examples
from letter_jax.evaluation import ranks
from letter_jax.evaluation.both_protocols import Ranks, Split
from letter_jax.evaluation.bought_together import bought_together_scores
from letter_jax.evaluation.buy_again import buy_again_scores
from letter_jax.evaluation.history import Figures, excluded_items, in_both
from letter_jax.evaluation.sparse_ranks import ranks_in_sparse_scores

if TYPE_CHECKING:
  from scipy import sparse

Rule = Callable[[Examples], 'sparse.csr_array']


def evaluate_simple_rules(
  neighbours_NxN: 'sparse.csr_array', counts_N: np.ndarray, users: Mapping[str, Split], exclude_history: bool
) -> tuple[dict[str, Figures], Ranks]:
  """The two rules, on validation and test.

  Args:
    neighbours_NxN: what stands together in the training, as of `bought_together.neighbours`.
    counts_N: int64, training interactions of each item, for the items that a rule says nothing about.
    users: as `both_protocols.validation_and_test` returns them.
    exclude_history: the main protocol (`config.evaluation.exclude_history`).

  Returns:
    The entries of each rule in `metrics.json`, and its ranks of the test as in `ranks.npz`.
  """
  rules: dict[str, Rule] = {
    ranks.BOUGHT_TOGETHER: lambda examples: bought_together_scores(neighbours_NxN, examples),
    ranks.BUY_AGAIN: lambda examples: buy_again_scores(examples, len(counts_N)),
  }
  found = {split: _both_ways(rules, counts_N, of_split) for split, of_split in users.items()}
  figures: dict[str, Figures] = {}
  of_test: Ranks = {}
  for name in rules:
    history_in, history_out = (
      {split: ranks.metrics_of(of_split[name][way]) for split, of_split in found.items()} for way in (0, 1)
    )
    figures[name] = in_both(history_in, history_out, exclude_history)
    of_test[name], of_test[ranks.history_out(name)] = found['test'][name]
  return figures, of_test


def _both_ways(
  rules: Mapping[str, Rule], counts_N: np.ndarray, users: Split
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """The ranks int32 [3, U] of each rule with the history in the ranking and out of it."""
  found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in rules}
  for batch in users.batches():
    had_BxH = excluded_items(batch.whole)
    for name, rule in rules.items():
      found[name].append(ranks_in_sparse_scores(rule(batch.examples), counts_N, batch.examples.targets, had_BxH))
  return {
    name: (np.concatenate(history_in, axis=1), np.concatenate(history_out, axis=1))
    for name, (history_in, history_out) in ((name, zip(*parts)) for name, parts in found.items())
  }
