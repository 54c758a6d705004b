import collections

import numpy as np

from letter_jax.data import splits
from letter_jax.evaluation.buy_again import buy_again_scores
from tests.small_data import interactions


def test_the_most_frequent_item_comes_first_and_of_equal_ones_the_latest():
  random = np.random.default_rng(0)
  data = interactions([random.integers(0, 9, random.integers(3, 25)) for _ in range(100)], 9)
  examples = splits.test_examples(data, 12)
  scores_BxN = buy_again_scores(examples, 9).toarray()
  assert scores_BxN.dtype == np.int64
  for score_N, history in zip(scores_BxN, examples.histories(12).tolist()):
    history = [item for item in history if item >= 0]
    last = {item: place for place, item in enumerate(history)}
    times = collections.Counter(history)
    expected = sorted(last, key=lambda item: (times[item], last[item]), reverse=True)
    assert np.argsort(-score_N, kind='stable')[: len(expected)].tolist() == expected
    assert np.count_nonzero(score_N) == len(expected) == len(set(score_N[score_N > 0].tolist()))
