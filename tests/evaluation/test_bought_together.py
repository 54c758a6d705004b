"""Bought together against counting every pair in plain Python."""

import collections
from fractions import Fraction

import numpy as np
import pytest

from letter_jax.data import splits
from letter_jax.evaluation import bought_together, popularity
from letter_jax.evaluation.bought_together import LAST, LAST_UNIT, UNIT, WINDOW, bought_together_scores, neighbours
from tests.small_data import interactions

ITEMS = 25


def data_and_sequences(seed=0):
  random = np.random.default_rng(seed)
  sequences = [(random.integers(0, ITEMS, random.integers(3, 30)) ** 2 // ITEMS).tolist() for _ in range(60)]
  return interactions(sequences, ITEMS), sequences


def pair_counts(sequences, history_length):
  counts = collections.Counter()
  for sequence in sequences:
    training = sequence[:-2][-history_length:]
    for place, item in enumerate(training):
      for other_place, other in enumerate(training):
        if 0 < abs(place - other_place) <= WINDOW:
          counts[item, other] += Fraction(1, abs(place - other_place))
  return counts


@pytest.mark.parametrize('history_length', [4, 50])
def test_counts_are_those_of_all_pairs(history_length, monkeypatch):
  data, sequences = data_and_sequences()
  expected = pair_counts(sequences, history_length)
  popular_N = popularity.training_counts(data)
  found = neighbours(data, history_length, popular_N).toarray()
  assert found.dtype == np.int64 and np.array_equal(found, found.T) and (np.diag(found) > 0).any()
  assert {pair: Fraction(int(found[pair]), UNIT) for pair in zip(*np.nonzero(found))} == expected
  monkeypatch.setattr(bought_together, '_PAIRS', 50)  # several parts
  assert np.array_equal(neighbours(data, history_length, popular_N).toarray(), found)


def test_an_item_keeps_its_most_frequent_neighbours(monkeypatch):
  data, sequences = data_and_sequences(1)
  counts = pair_counts(sequences, 50)
  popular = popularity.training_counts(data)
  monkeypatch.setattr(bought_together, 'NEIGHBOURS', 3)
  found = neighbours(data, 50, popular).toarray()
  for item in range(ITEMS):
    others = [other for other in range(ITEMS) if counts[item, other]]
    best = sorted(others, key=lambda other: (-counts[item, other], -popular[other], other))[:3]
    assert np.flatnonzero(found[item]).tolist() == sorted(best)


def test_of_equally_frequent_neighbours_the_popular_ones_stay_and_then_the_first(monkeypatch):
  data = interactions([[0, other, 9, 9] for other in range(1, 8)], 10)
  popular_N = np.array([7, 1, 1, 1, 1, 2, 1, 1, 0, 0])
  monkeypatch.setattr(bought_together, 'NEIGHBOURS', 3)
  assert np.flatnonzero(neighbours(data, 50, popular_N).toarray()[0]).tolist() == [1, 2, 5]


def test_scores_are_weighted_by_the_age_of_the_last_items():
  data, sequences = data_and_sequences(2)
  counts = pair_counts(sequences, 50)
  test = splits.test_examples(data, 20)
  scores = bought_together_scores(neighbours(data, 50, popularity.training_counts(data)), test)
  assert scores.has_sorted_indices and (scores.data > 0).all()
  for score_N, sequence in zip(scores.toarray().tolist(), sequences):
    last = sequence[:-1][::-1][:LAST]
    expected = [sum(counts[item, other] / age for age, item in enumerate(last, 1)) for other in range(ITEMS)]
    assert [Fraction(score, UNIT * LAST_UNIT) for score in score_N] == expected


def test_users_without_training_pairs_are_no_error():
  data = interactions([[0, 1, 2], [2, 1, 0]], 3)
  found = neighbours(data, 20, popularity.training_counts(data))
  assert found.shape == (3, 3) and found.nnz == 0
  assert bought_together_scores(found, splits.test_examples(data, 20)).nnz == 0
