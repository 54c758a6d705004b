"""Figures of histories that are cut to their latest items, against ranking every item for every user."""

import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation import ranks, short_histories
from letter_jax.evaluation.first_purchases import FirstPurchases, count_first_purchases
from letter_jax.evaluation.list_evaluator import ListEvaluator
from letter_jax.evaluation.short_histories import evaluate_short_histories
from tests.generators.building import placed
from tests.small_data import distinct_codes, interactions

ITEMS, LEVELS, K, USERS, LONGEST = 40, 2, 8, 23, 12
CODES_NxL = distinct_codes(ITEMS, LEVELS, K)


def begin(table_IxLxK, items_BxC, codes_NxL):
  """Scores depend on every item of the history."""
  there_BxC = (items_BxC >= 0).astype(jnp.float32)
  state_BxLxK = jnp.einsum('bc,bclk->blk', there_BxC, table_IxLxK[jnp.maximum(items_BxC, 0)])

  def step(level, codes_BxW, cache):
    width = 1 if codes_BxW is None else codes_BxW.shape[1]
    return jnp.repeat(state_BxLxK[:, None, level], width, axis=1), cache

  return step, None


@pytest.fixture(scope='module')
def world():
  """Users with histories of 2 to 15 items, a table that scores them, and the search."""
  random = np.random.default_rng(0)
  data = interactions([random.integers(ITEMS, size=random.integers(3, 17)) for _ in range(USERS)], ITEMS)
  table = random.normal(size=(ITEMS, LEVELS, K)).astype(np.float32)
  ids = placed(CODES_NxL, K, sharding.make_mesh(MeshConfig()))
  search = UserSearch(Search(begin, renormalise=False), ids, UserBatches(ids.mesh, 5), ITEMS)
  return data, table, search


def expected(data, table, users, length):
  """Recall@10 and NDCG@10 of full rankings by the latest `length` items."""
  gains = []
  for user in users:
    *history, target = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
    of_history_LxK = table[history[-length:]].sum(axis=0)
    scores_N = sum(of_history_LxK[level, CODES_NxL[:, level]] for level in range(LEVELS))
    rank = int((scores_N > scores_N[target]).sum())
    gains.append((rank < 10, (rank < 10) / np.log2(rank + 2)))
  return dict(zip(('recall@10', 'ndcg@10'), np.mean(gains, axis=0)))


@pytest.mark.parametrize('most', [2000, 9])
def test_figures_are_those_of_full_rankings(world, monkeypatch, most):
  data, table, search = world
  monkeypatch.setattr(short_histories, 'USERS', most)
  test, longest = splits.test_examples(data, LONGEST), int(data.lengths.max())
  *_, whole_3xU = ListEvaluator(search, longest).lists(table, test, test.whole_histories(data), '')
  compiled = search._items._cache_size()
  newcomers = FirstPurchases(count_first_purchases(data))
  found = evaluate_short_histories(search, table, test, longest, whole_3xU, newcomers)
  assert search._items._cache_size() == compiled  # the programs of the test
  assert list(found) == ['users', '0', '1', '2', '3', 'whole'] and found['users'] == min(most, USERS)
  users = splits.evenly_spaced(USERS, short_histories.USERS)
  assert len(users) == found['users'] and users[0] == 0 and users[-1] == USERS - 1
  for length in (1, 2, 3):
    assert found[str(length)] == pytest.approx(expected(data, table, users, length))
  assert found['1'] != found['2'] != found['3'] != found['whole']
  of_whole = ranks.metrics_of(whole_3xU[:, users])
  assert found['whole'] == {metric: of_whole[metric] for metric in ('recall@10', 'ndcg@10')}
  best = newcomers.order_N[:10].tolist()
  targets = test.targets[users].tolist()
  assert found['0']['recall@10'] == pytest.approx(np.mean([target in best for target in targets]))
  gains = [1 / np.log2(best.index(target) + 2) for target in targets if target in best]
  assert found['0']['ndcg@10'] == pytest.approx(sum(gains) / len(targets)) and gains
