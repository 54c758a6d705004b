"""The rules in both protocols against scoring the whole catalogue for every user."""

import numpy as np
import pytest

from letter_jax.evaluation import both_protocols, bought_together, buy_again, metrics, popularity, ranks, simple_rules
from letter_jax.evaluation.history import excluded_items
from tests.small_data import interactions

ITEMS, USERS, LENGTH = 40, 50, 6


def test_figures_and_ranks_are_those_of_a_full_ranking(monkeypatch):
  random = np.random.default_rng(0)
  data = interactions([random.integers(0, ITEMS, random.integers(3, 15)) ** 2 // ITEMS for _ in range(USERS)], ITEMS)
  counts_N, users = popularity.training_counts(data), both_protocols.validation_and_test(data, LENGTH)
  monkeypatch.setattr(both_protocols, '_USERS', 7)  # several batches, the last one smaller
  neighbours_NxN = bought_together.neighbours(data, LENGTH, counts_N)
  figures, of_test = simple_rules.evaluate_simple_rules(neighbours_NxN, counts_N, users, exclude_history=False)
  for split, of_split in users.items():
    scores = {
      'bought_together': bought_together.bought_together_scores(neighbours_NxN, of_split.examples).toarray(),
      'buy_again': buy_again.buy_again_scores(of_split.examples, ITEMS).toarray(),
    }
    assert figures.keys() == scores.keys()
    for name, score_UxN in scores.items():
      for history_out in (False, True):
        # Small enough for float32 to tell all values apart.
        by_both_UxN = np.unique(score_UxN * 1000 + counts_N, return_inverse=True)[1].reshape(USERS, ITEMS)
        if history_out:
          for had_N, row_N in zip(excluded_items(of_split.whole), by_both_UxN):
            row_N[had_N[had_N >= 0]] = -1
        score = np.where(by_both_UxN < 0, -np.inf, by_both_UxN).astype(np.float32)
        rank = metrics.rank_in_scores(score, of_split.examples.targets)
        expected = metrics.summarize(metrics.expected_metrics(*rank, np.ones(USERS)))
        found = figures[name]['history_out' if history_out else 'history_in']
        assert found[split] == pytest.approx(expected, rel=1e-5)
        if split == 'test':
          in_list = np.asarray(rank[2])
          ranks_3xU = of_test[ranks.history_out(name) if history_out else name]
          np.testing.assert_array_equal(ranks_3xU[2], in_list)
          np.testing.assert_array_equal(ranks_3xU[:2, in_list], np.stack(rank[:2])[:, in_list])
