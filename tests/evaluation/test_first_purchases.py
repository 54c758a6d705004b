"""The popularity of first purchases against counting in plain Python."""

import collections

import numpy as np
import pytest

from letter_jax.data import store
from letter_jax.data.dataset import Dataset, Interactions
from letter_jax.evaluation.first_purchases import FirstPurchases, count_first_purchases
from letter_jax.system.errors import InputError
from letter_jax.workdir import FIRST_PURCHASES, Workdir
from tests.small_data import interactions

ITEMS = 30


@pytest.fixture
def sequences():
  random = np.random.default_rng(0)
  return [(random.integers(0, ITEMS - 2, length) ** 2 // ITEMS).tolist() for length in random.integers(3, 12, 80)]


def test_what_is_counted(sequences):
  first_N, all_N = count_first_purchases(interactions(sequences, ITEMS))
  first = collections.Counter(sequence[0] for sequence in sequences)
  whole = collections.Counter(item for sequence in sequences for item in sequence[:-2])
  assert first_N.tolist() == [first[item] for item in range(ITEMS)]
  assert all_N.tolist() == [whole[item] for item in range(ITEMS)]


def test_users_without_a_training_interaction_count_for_nothing():
  data = Interactions(np.array([1, 1, 2, 0, 2, 2], np.int32), np.array([0, 1, 3, 3, 6]), 3, ('a', 'b', 'c', 'd'))
  assert count_first_purchases(data).tolist() == [[1, 0, 0], [1, 0, 0]]


def test_the_ranking(sequences):
  counts_2xN = count_first_purchases(interactions(sequences, ITEMS))
  newcomers = FirstPurchases(counts_2xN)
  first, whole = counts_2xN.tolist()
  expected = sorted(range(ITEMS), key=lambda item: (-first[item], -whole[item], item))
  assert newcomers.order_N.tolist() == expected and newcomers.order_N.dtype == np.int32
  assert len({*zip(first, whole)}) < ITEMS  # some are equal in both counts
  allowed_N = np.arange(ITEMS) % 3 == 1
  items_K, scores_K = newcomers.best(allowed_N, 12)
  kept = [item for item in expected if item % 3 == 1]
  assert items_K.tolist() == [*kept, -1, -1] and (scores_K[10:] == -np.inf).all()
  assert items_K.dtype == np.int32 and scores_K.dtype == np.float32
  np.testing.assert_allclose(scores_K[:10], [np.log((first[item] + 1) / (80 + ITEMS)) for item in kept], rtol=1e-6)
  assert np.exp(newcomers.scores_N).sum() == pytest.approx(1)
  assert newcomers.best(allowed_N, 4)[0].tolist() == kept[:4]


def test_items_that_nobody_has_bought_come_last(sequences):
  newcomers = FirstPurchases(count_first_purchases(interactions(sequences, ITEMS))).extended(2)
  assert newcomers.order_N.tolist()[-2:] == [ITEMS, ITEMS + 1]
  assert newcomers.best(np.arange(ITEMS + 2) >= ITEMS, 3)[0].tolist() == [ITEMS, ITEMS + 1, -1]


def test_the_file_of_a_workdir(sequences, tmp_path):
  workdir, data = Workdir(tmp_path), interactions(sequences, ITEMS)
  store.save(Dataset('small', data, None), workdir.dataset)
  expected = count_first_purchases(data)
  with pytest.raises(InputError, match='first_purchases.npy cannot be read'):
    workdir.read_first_purchases()
  workdir.write_first_purchases(data)
  np.testing.assert_array_equal(workdir.read_first_purchases().counts_2xN, expected)
  path = workdir.dataset / FIRST_PURCHASES
  np.save(path, expected[:, :-1])
  with pytest.raises(InputError, match=r'first_purchases.npy is an array \[2, 29\]'):
    workdir.read_first_purchases()
  path.write_bytes(b'damaged')
  with pytest.raises(InputError, match='first_purchases.npy cannot be read'):
    workdir.read_first_purchases()
