"""Metrics against averages over every order that ties can come in."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.evaluation import metrics, ranks

expected_metrics = jax.jit(metrics.expected_metrics)
NAMES = [f'{name}@{k}' for name in ('recall', 'ndcg') for k in (1, 5, 10, 20)]


def metrics_of_ranks(ranks):
  """Plain Python: the mean over equally likely ranks (None: not found)."""
  result = {}
  for k in (1, 5, 10, 20):
    hits = [rank for rank in ranks if rank is not None and rank < k]
    result[f'recall@{k}'] = len(hits) / len(ranks)
    result[f'ndcg@{k}'] = sum(1 / math.log2(rank + 2) for rank in hits) / len(ranks)
  return result


def assert_sums_are(sums, per_user):
  assert sorted(sums) == sorted(NAMES)
  for name, (total, count) in sums.items():
    assert float(count) == len(per_user)
    assert float(total) == pytest.approx(sum(user[name] for user in per_user), rel=1e-5, abs=1e-6)


def test_expected_metrics_are_means_over_the_group():
  ahead, group = map(np.ravel, np.meshgrid(np.arange(25), [1, 2, 3, 7, 30], indexing='ij'))
  expected = [metrics_of_ranks(range(a, a + g)) for a, g in zip(ahead, group)]
  for i in range(len(ahead)):
    one = expected_metrics(ahead[i : i + 1], group[i : i + 1], np.ones(1, bool), np.ones(1))
    assert_sums_are(one, expected[i : i + 1])
  together = expected_metrics(ahead, group, np.ones(len(ahead), bool), np.ones(len(ahead)))
  assert_sums_are(together, expected)
  clipped = np.clip((10 - ahead) / group, 0, 1).sum()
  assert float(together['recall@10'][0]) == pytest.approx(clipped, rel=1e-6)


def test_targets_that_are_not_found_count_and_padded_rows_do_not():
  ahead, group = np.array([0, 0, 3, 0]), np.array([1, 1, 2, 1])
  found, weight = np.array([True, False, True, True]), np.array([1, 1, 1, 0], np.float32)
  sums = expected_metrics(ahead, group, found, weight)
  assert_sums_are(sums, [metrics_of_ranks([0]), metrics_of_ranks([None]), metrics_of_ranks([3, 4])])


@pytest.mark.parametrize('target', range(6))
def test_rank_in_beams_is_the_mean_over_the_orders_of_shared_ids(target):
  items_of_leaf = [[0], [1, 2, 3], [4, 5], [6], [7, 8]]
  leaf_of_target = [0, 1, 2, 3, 4, 1][target]
  item = [0, 2, 5, 6, 7, 1][target]
  leaves = [2, 1, 4, 0, -1]
  ranks = []
  for orders in itertools.product(*[itertools.permutations(items_of_leaf[leaf]) for leaf in leaves if leaf >= 0]):
    listed = list(itertools.chain(*orders))
    ranks.append(listed.index(item) if item in listed else None)
  sizes = np.array([len(items) for items in items_of_leaf])
  ahead, group, found = jax.jit(metrics.rank_in_beams)(np.array([leaves]), sizes, np.array([leaf_of_target]))
  assert bool(found[0]) == (leaf_of_target in leaves)
  assert_sums_are(expected_metrics(ahead, group, found, np.ones(1)), [metrics_of_ranks(ranks)])


def test_string_match_takes_any_item_of_the_id_for_the_target():
  leaves_BxW, target_B = np.array([[2, 1, 4], [2, 1, 4], [2, 1, -1], [2, 1, -1]]), np.array([4, 2, 3, -1])
  ahead, group, found = metrics.string_match(leaves_BxW, target_B)
  assert found.tolist() == [True, True, False, False]
  assert ahead[:2].tolist() == [2, 0] and group.tolist() == [1, 1, 1, 1]
  sums = expected_metrics(ahead, group, found, np.array([1, 1, 1, 0]))
  assert_sums_are(sums, [metrics_of_ranks([2]), metrics_of_ranks([0]), metrics_of_ranks([None])])


def test_string_match_and_expected_rank_agree_where_no_id_is_shared():
  random = np.random.default_rng(0)
  leaves_BxW = np.argsort(random.random((40, 30)), axis=1)[:, :20]
  target_B = random.integers(0, 30, 40)
  by_rank = metrics.rank_in_beams(leaves_BxW, np.ones(30, np.int32), target_B)
  by_string = metrics.string_match(leaves_BxW, target_B)
  found_B = np.asarray(by_rank[2])
  assert 0 < found_B.sum() < 40
  for a, b in zip(by_rank, by_string):
    np.testing.assert_array_equal(np.asarray(a)[found_B], np.asarray(b)[found_B])
  np.testing.assert_array_equal(found_B, by_string[2])


def test_full_ranking_gives_ties_their_mean_and_masks_padded_rows():
  random = np.random.default_rng(1)
  scores_BxN = np.round(random.normal(0, 2, (30, 40))).astype(np.float32)
  target_B = random.integers(0, 40, 30)
  scores_BxN[3, target_B[3]] = np.nan
  scores_BxN[4, :] = -np.inf
  scores_BxN[5, :] = np.nan
  scores_BxN[6, (target_B[6] + 1) % 40] = np.nan
  expected = []
  for user, (scores, target) in enumerate(zip(scores_BxN, target_B)):
    ahead, same = sum(scores > scores[target]), sum(scores == scores[target])
    expected.append(metrics_of_ranks([None] if user in (3, 4, 5) else range(ahead, ahead + same)))
  scores_BxN = np.concatenate([scores_BxN, np.full((2, 40), np.nan, np.float32)])
  target_B = np.append(target_B, [-1, 99])
  weight_B = np.append(np.ones(30), [0, 0])
  assert_sums_are(jax.jit(metrics_of_scores)(scores_BxN, target_B, weight_B), expected)


def metrics_of_scores(scores_BxN, target_B, weight_B, ks=ranks.KS):
  return metrics.expected_metrics(*metrics.rank_in_scores(scores_BxN, target_B), weight_B, ks)


def test_other_ks_can_be_asked_for():
  sums = metrics_of_scores(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([1]), jnp.ones(1), ks=(2, 3))
  assert metrics.summarize(sums) == pytest.approx(
    {name: 1.0 if name[0] == 'r' else 1 / math.log2(3) for name in ('recall@2', 'recall@3', 'ndcg@2', 'ndcg@3')}
  )


def test_batches_merge_to_the_whole():
  random = np.random.default_rng(2)
  ahead, group, found = random.integers(0, 30, 100), random.integers(1, 4, 100), random.random(100) < 0.8
  whole = metrics.summarize(expected_metrics(ahead, group, found, np.ones(100)))
  batches = [
    expected_metrics(ahead[i : i + 20], group[i : i + 20], found[i : i + 20], np.ones(20)) for i in range(0, 100, 20)
  ]
  merged = metrics.merge(batches)
  assert merged['recall@10'][1] == 100
  assert metrics.summarize(merged) == pytest.approx(whole, rel=1e-6)
  assert sorted(whole) == sorted(NAMES)
  assert all(type(value) is float for value in metrics.summarize(merged).values())


def test_no_users_at_all_is_zero_and_no_error():
  sums = expected_metrics(np.zeros(2), np.ones(2), np.ones(2, bool), np.zeros(2))
  assert set(metrics.summarize(sums).values()) == {0.0}
