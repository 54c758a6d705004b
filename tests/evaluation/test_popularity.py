"""Popularity against counting and ranking in plain Python."""

import collections

import numpy as np
import pytest

from letter_jax.data import splits
from letter_jax.data.dataset import Interactions
from letter_jax.evaluation import metrics, popularity
from letter_jax.evaluation.history import excluded_items


def random_interactions(seed):
  random = np.random.default_rng(seed)
  sequences = [random.integers(0, 30, length) ** 2 // 30 for length in random.integers(3, 12, 40)]
  offsets = np.cumsum([0] + [len(sequence) for sequence in sequences])
  data = Interactions(np.concatenate(sequences).astype(np.int32), offsets, 33, tuple(map(str, range(40))))
  return data, sequences


def test_counts_leave_out_the_last_two_interactions_of_every_user():
  data, sequences = random_interactions(0)
  expected = collections.Counter(int(item) for sequence in sequences for item in sequence[:-2])
  counts_N = popularity.training_counts(data)
  assert counts_N.tolist() == [expected[item] for item in range(33)]


def test_users_with_fewer_than_three_interactions_train_nothing():
  data = Interactions(np.array([0, 1, 1, 2, 2, 2], np.int32), np.array([0, 1, 3, 6]), 3, ('a', 'b', 'c'))
  assert popularity.training_counts(data).tolist() == [0, 0, 1]


def test_metrics_are_those_of_ranking_every_item_for_every_user():
  data, sequences = random_interactions(1)
  counts_N = popularity.training_counts(data)
  target_B = np.array([sequence[-1] for sequence in sequences])
  assert len(set(counts_N.tolist())) < len(counts_N)
  ours, _ = popularity.popularity_metrics(counts_N, target_B)
  scores_BxN = np.tile(counts_N.astype(np.float32), (len(target_B), 1))
  ranked = metrics.expected_metrics(*metrics.rank_in_scores(scores_BxN, target_B), np.ones(len(target_B)))
  assert metrics.summarize(ours) == pytest.approx(metrics.summarize(ranked), rel=1e-5)
  for k in (1, 10):
    hits = 0.0
    for target in target_B:
      ahead = sum(count > counts_N[target] for count in counts_N)
      group = sum(count == counts_N[target] for count in counts_N)
      hits += sum(place < k for place in range(ahead, ahead + group)) / group
    assert metrics.summarize(ours)[f'recall@{k}'] == pytest.approx(hits / len(target_B), rel=1e-5)


def test_a_known_case():
  counts_N, target_B = np.array([5, 9, 5, 0]), np.array([1, 0, 3])
  result = metrics.summarize(popularity.popularity_metrics(counts_N, target_B, ks=(1, 2))[0])
  assert result['recall@1'] == pytest.approx(1 / 3)
  assert result['recall@2'] == pytest.approx(1.5 / 3)
  assert result['ndcg@2'] == pytest.approx((1 + 0.5 / np.log2(3)) / 3)


def test_the_history_out_of_the_ranking():
  data, sequences = random_interactions(2)
  counts_N = popularity.training_counts(data)
  test = splits.test_examples(data, 20)
  _, ranks_3xB = popularity.popularity_metrics(counts_N, test.targets, excluded_items(test.whole_histories(data)))
  for sequence, (ahead, group, found) in zip(sequences, ranks_3xB.T):
    *history, target = sequence.tolist()
    left = [item for item in range(33) if item not in history]
    assert found == (target not in history)
    if found:
      assert ahead == sum(counts_N[item] > counts_N[target] for item in left)
      assert group == sum(counts_N[item] == counts_N[target] for item in left)
  assert 0 < ranks_3xB[2].sum() < len(sequences)
