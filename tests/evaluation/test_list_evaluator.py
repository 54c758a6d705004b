"""Lists and ranks of all users, with the history in the ranking and out of it, and of two models with each weight."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from letter_jax.decoding.fusion import FusedUserSearch
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation import ranks
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.evaluation.list_evaluator import WEIGHTS, ListEvaluator, choose_weights
from tests.generators.building import placed
from tests.small_data import distinct_codes, interactions

ITEMS, LEVELS, K, USERS = 40, 2, 8, 23
CODES_NxL = distinct_codes(ITEMS, LEVELS, K)


def begin(table_IxLxK, items_BxC, codes_NxL):
  """Scores depend on the latest item alone."""
  length_B = (items_BxC >= 0).sum(axis=1)
  last_B = jnp.take_along_axis(items_BxC, jnp.maximum(length_B - 1, 0)[:, None], axis=1)[:, 0]

  def step(level, codes_BxW, cache):
    width = 1 if codes_BxW is None else codes_BxW.shape[1]
    return jnp.repeat(table_IxLxK[last_B][:, None, level], width, axis=1), cache

  return step, None


def dense_scores(table_IxN, items_BxC):
  length_B = (items_BxC >= 0).sum(axis=1)
  return table_IxN[jnp.take_along_axis(items_BxC, length_B[:, None] - 1, axis=1)[:, 0]]


@pytest.fixture(scope='module')
def world():
  """Users with histories of 2 to 15 items that recur, the tables of both models, and the scores of all items."""
  random = np.random.default_rng(0)
  data = interactions([random.integers(ITEMS, size=random.integers(3, 17)) for _ in range(USERS)], ITEMS)
  table, dense = random.normal(size=(ITEMS, LEVELS, K)), 2 * random.normal(size=(ITEMS, ITEMS))
  generator_IxN = sum(table[:, level, CODES_NxL[:, level]] for level in range(LEVELS))
  dense_IxN = dense - np.log(np.exp(dense).sum(axis=1, keepdims=True))
  return data, table.astype(np.float32), dense.astype(np.float32), generator_IxN, dense_IxN


def searches(beam):
  """The search of the generator, and of both models."""
  ids = placed(CODES_NxL, K, sharding.make_mesh(MeshConfig()))
  search = UserSearch(Search(begin, renormalise=False), ids, UserBatches(ids.mesh, 5), beam)
  return search, FusedUserSearch(search, (dense_scores,), ITEMS)


def expected_ranks(data, scores_IxN, history_out):
  found = []
  for user in range(USERS):
    *history, target = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
    scores_N = scores_IxN[history[-1]].copy()
    if history_out:
      scores_N[history] = -np.inf
    found.append(int((scores_N > scores_N[target]).sum()) if scores_N[target] > -np.inf else ITEMS)
  return np.array(found)


@pytest.mark.parametrize('history_out', [False, True])
def test_ranks_are_those_of_a_full_ranking(world, history_out):
  data, table, dense, generator_IxN, dense_IxN = world
  alone, fused = searches(beam=ITEMS)
  test = splits.test_examples(data, 12)
  whole = test.whole_histories(data) if history_out else None
  for searcher, params, scores_IxN in (
    (alone, table, generator_IxN),
    (fused, (table, (dense,), np.array([0.5], np.float32)), generator_IxN + 0.5 * dense_IxN),
  ):
    evaluator = ListEvaluator(searcher, int(data.lengths.max()))
    items_UxK, scores_UxK, ranks_3xU = evaluator.lists(params, test, whole, '')
    expected = expected_ranks(data, scores_IxN, history_out)
    np.testing.assert_array_equal(np.where(ranks_3xU[2], ranks_3xU[0], ITEMS), expected)
    for user, items in enumerate(items_UxK):
      kept = items[items >= 0]
      had = set(data.items[data.offsets[user] : data.offsets[user + 1] - 1].tolist())
      assert len(kept) == (ITEMS - len(had) if history_out else ITEMS) == len(set(kept.tolist()))
      last = data.items[data.offsets[user + 1] - 2]
      np.testing.assert_allclose(scores_UxK[user][items >= 0], scores_IxN[last, kept], atol=1e-4)


def test_items_that_share_an_id_are_tied(world):
  data, table, *_ = world
  codes_NxL = np.repeat(CODES_NxL[::4], 4, axis=0)  # four items of each ID
  ids = placed(codes_NxL, K, sharding.make_mesh(MeshConfig()))
  search = UserSearch(Search(begin, renormalise=False), ids, UserBatches(ids.mesh, 5), ITEMS)
  lists, test = ListEvaluator(search, int(data.lengths.max())), splits.test_examples(data, 12)
  *_, in_3xU = lists.lists(table, test, None, '', tied_ids=True)
  np.testing.assert_array_equal(in_3xU, GeneratorEvaluator(search).evaluate(table, test, '').ranks_3xU)
  items_UxK, _, out_3xU = lists.lists(table, test, test.whole_histories(data), '', tied_ids=True)
  for user, (items, target) in enumerate(zip(items_UxK, test.targets)):
    mates = [place for place, item in enumerate(items) if item >= 0 and item // 4 == target // 4]
    if target in data.items[data.offsets[user] : data.offsets[user + 1] - 1]:
      assert not out_3xU[2, user]
    else:
      assert out_3xU[:, user].tolist() == [mates[0], len(mates), 1]
  assert {1, 4} < set(out_3xU[1].tolist()) and not out_3xU[2].all()


def test_the_weight_with_the_best_validation_is_chosen(world):
  data, table, dense, generator_IxN, dense_IxN = world
  _, fused = searches(beam=ITEMS)
  evaluator = ListEvaluator(fused, int(data.lengths.max()))
  examples = splits.test_examples(data, 12)
  weights, found = choose_weights(evaluator, (table, (dense,)), 1, examples, examples.whole_histories(data), '')
  for each in WEIGHTS:
    for history_out in (False, True):
      rank_U = expected_ranks(data, generator_IxN + each * dense_IxN, history_out)
      gains = ranks.metrics_of(np.stack([rank_U, np.ones(USERS, int), rank_U < ITEMS]))
      assert found[(each,)][history_out] == pytest.approx(gains)
  total = {each: sum(metrics['ndcg@10'] for metrics in of) for each, of in found.items()}
  assert total[weights] == max(total.values()) and len(set(total.values())) > 1


def test_both_searches_share_one_copy_of_the_catalogue_on_the_devices(world):
  data, table, dense, *_ = world
  test, longest = splits.test_examples(data, 12), int(data.lengths.max())
  gc.collect()
  before = {id(array) for array in jax.live_arrays()}
  alone, fused = searches(beam=10)
  ListEvaluator(alone, longest).lists(table, test, None, '')
  ListEvaluator(fused, longest).lists((table, (dense,), np.ones(1, np.float32)), test, None, '')
  gc.collect()
  new = [array for array in jax.live_arrays() if id(array) not in before]
  of_items = [array for array in new if array.shape == CODES_NxL.shape]
  assert len(of_items) == 2, 'the codes of the items and their paths in the trie'
  assert sum(array is alone.ids.trie.item for array in new) == 1
  assert len([array for array in new if array.shape == (ITEMS,) and array.dtype == np.int32]) == 1  # `trie.item`
