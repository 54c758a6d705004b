"""Ranks in sparse scores against sorting the whole catalogue for every user."""

import numpy as np
import pytest
from scipy import sparse

from letter_jax.evaluation.popularity import popularity_metrics
from letter_jax.evaluation.sparse_ranks import ranks_in_sparse_scores

USERS, ITEMS = 200, 12


@pytest.mark.parametrize('history_out', [False, True])
def test_ranks_are_those_of_comparing_with_every_item(history_out):
  random = np.random.default_rng(0)
  dense_BxN = random.integers(0, 4, (USERS, ITEMS)) * (random.random((USERS, ITEMS)) < 0.4)
  counts_N = random.integers(0, 5, ITEMS)
  target_B = random.integers(0, ITEMS, USERS)
  had_BxH = np.stack([np.where(random.random(4) < 0.7, random.permutation(ITEMS)[:4], -1) for _ in range(USERS)])
  found = ranks_in_sparse_scores(sparse.csr_array(dense_BxN), counts_N, target_B, had_BxH.astype(np.int32))[history_out]
  assert found.dtype == np.int32 and found.shape == (3, USERS)
  for score_N, target, had_H, (ahead, group, in_list) in zip(dense_BxN, target_B, had_BxH.tolist(), found.T):
    left = [item for item in range(ITEMS) if not history_out or item not in had_H]
    key = list(zip(score_N.tolist(), counts_N.tolist()))
    assert in_list == (target in left)
    if in_list:
      assert ahead == sum(key[item] > key[target] for item in left)
      assert group == sum(key[item] == key[target] for item in left)
  scored_B = dense_BxN[np.arange(USERS), target_B] > 0
  assert 0 < scored_B.sum() < USERS and (found[1] > 1).any() and history_out == (found[2] == 0).any()


def test_nobody_is_no_error():
  scores, nobody = sparse.csr_array((0, 3), dtype=np.int64), np.zeros(0, int)
  for ranks in ranks_in_sparse_scores(scores, np.ones(3, int), nobody, np.zeros((0, 1), int)):
    assert ranks.shape == (3, 0)


def test_a_rule_with_nothing_to_say_is_popularity():
  random = np.random.default_rng(1)
  counts_N, target_B = random.integers(0, 4, ITEMS), random.integers(0, ITEMS, USERS)
  had_BxH = np.stack([random.permutation(ITEMS)[:3] for _ in range(USERS)]).astype(np.int32)
  found = ranks_in_sparse_scores(sparse.csr_array((USERS, ITEMS), dtype=np.int64), counts_N, target_B, had_BxH)
  for ranks, had in zip(found, (None, had_BxH)):
    np.testing.assert_array_equal(ranks, popularity_metrics(counts_N, target_B, had)[1])
