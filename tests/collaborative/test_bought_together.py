"""The counts as a dense model: the baseline's scores, smoothed, as log-probabilities of the whole catalogue."""

import jax
import numpy as np
import pytest

from letter_jax.collaborative.bought_together import PRIOR, BoughtTogether, scores
from letter_jax.data import splits
from letter_jax.evaluation import bought_together, popularity
from letter_jax.system.errors import InputError
from tests.small_data import interactions

ITEMS, LENGTH = 30, 8


@pytest.fixture(scope='module')
def data():
  random = np.random.default_rng(0)
  return interactions([random.integers(ITEMS, size=random.integers(3, 12)) for _ in range(25)], ITEMS)


def test_probabilities_are_the_smoothed_counts_of_the_baseline(data, monkeypatch):
  monkeypatch.setattr(bought_together, 'NEIGHBOURS', 7)  # some rows are cut, some are shorter
  counts_N, examples = popularity.training_counts(data), splits.test_examples(data, LENGTH)
  counts_NxN = bought_together.neighbours(data, LENGTH, counts_N)
  together = BoughtTogether.of(counts_NxN, counts_N)
  log_probs_BxN = np.asarray(jax.jit(scores)(together.params(), examples.histories(LENGTH)))
  baseline_BxN = bought_together.bought_together_scores(counts_NxN, examples).toarray()
  counts_BxN = baseline_BxN / (bought_together.UNIT * bought_together.LAST_UNIT)
  prior_N = PRIOR * (counts_N + 1) / (counts_N + 1).sum()
  expected_BxN = (counts_BxN + prior_N) / (counts_BxN.sum(axis=1, keepdims=True) + PRIOR)
  np.testing.assert_allclose(np.exp(log_probs_BxN), expected_BxN, rtol=1e-5)
  np.testing.assert_allclose(np.exp(log_probs_BxN).sum(axis=1), 1, rtol=1e-5)


def test_without_a_history_it_is_popularity(data):
  counts_N = popularity.training_counts(data)
  together = BoughtTogether.of(bought_together.neighbours(data, LENGTH, counts_N), counts_N)
  (log_probs_N,) = scores(together.params(), np.full((1, 3), -1, np.int32))
  np.testing.assert_allclose(np.exp(log_probs_N), (counts_N + 1) / (counts_N + 1).sum(), rtol=1e-5)


def test_what_is_written_is_read_and_a_damaged_file_is_named(data, tmp_path):
  counts_N = popularity.training_counts(data)
  together = BoughtTogether.of(bought_together.neighbours(data, LENGTH, counts_N), counts_N)
  together.write(tmp_path / 'file')
  read = BoughtTogether.read(tmp_path / 'file')
  for name, array in together.params().items():
    np.testing.assert_array_equal(read.params()[name], array)
  (tmp_path / 'file').write_bytes(b'no')
  with pytest.raises(InputError, match='file cannot be read'):
    BoughtTogether.read(tmp_path / 'file')
