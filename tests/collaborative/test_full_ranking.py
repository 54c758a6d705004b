"""Every user once, with its own history and target, whatever the number of users and devices."""

import jax
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.collaborative import full_ranking as module
from letter_jax.collaborative.full_ranking import EVALUATION_BATCH, full_lists, full_ranking
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from tests.small_data import interactions

ITEMS, WIDTH = 30, 2


def scores(table_UxN, user_B, history_BxT):
  """Of the table, less for what was latest."""
  assert history_BxT.shape[1] == WIDTH
  return table_UxN[user_B] - jax.nn.one_hot(history_BxT, ITEMS).sum(axis=1)


@pytest.mark.parametrize('history_out', [False, True])
@pytest.mark.parametrize('users', [3, 2 * EVALUATION_BATCH + 5])
def test_metrics_are_those_of_all_users(users, history_out):
  random = np.random.default_rng(users)
  data = interactions(random.integers(ITEMS, size=(users, 5)), ITEMS)
  table_UxN = random.random((users, ITEMS)).astype(np.float32)
  examples = splits.test_examples(data, 20)
  whole = examples.whole_histories(data) if history_out else None
  found, ranks_3xU = full_ranking(scores, ITEMS, sharding.make_mesh(MeshConfig()))(table_UxN, examples, WIDTH, whole)
  adjusted_UxN = table_UxN.copy()
  for user, latest in enumerate(data.items.reshape(users, 5)[:, 2:4]):
    np.subtract.at(adjusted_UxN[user], latest, 1)
  target_U = examples.targets
  target_score_U = adjusted_UxN[np.arange(users), target_U]
  there_U = np.ones(users, bool)
  if history_out:
    earlier_Ux4 = data.items.reshape(users, 5)[:, :4]
    np.put_along_axis(adjusted_UxN, earlier_Ux4, -np.inf, axis=1)
    there_U = (earlier_Ux4 != target_U[:, None]).all(axis=1)
    assert users == 3 or not there_U.all()
  rank_U = np.where(there_U, (adjusted_UxN > target_score_U[:, None]).sum(axis=1), ITEMS)
  np.testing.assert_array_equal(ranks_3xU[0][there_U], rank_U[there_U])
  np.testing.assert_array_equal(ranks_3xU[2], there_U)
  for k in (1, 5, 10, 20):
    assert found[f'recall@{k}'] == pytest.approx(np.mean(rank_U < k))
    assert found[f'ndcg@{k}'] == pytest.approx(np.sum((rank_U < k) / np.log2(rank_U + 2)) / users, rel=1e-5)


@pytest.mark.parametrize('history_out', [False, True])
@pytest.mark.parametrize('users', [3, 2 * EVALUATION_BATCH + 5])
def test_lists_are_those_of_sorting_the_catalogue(users, history_out):
  random = np.random.default_rng(users)
  data = interactions(random.integers(ITEMS, size=(users, 5)), ITEMS)
  examples = splits.test_examples(data, 20)
  table_NxN = random.random((ITEMS, ITEMS)).astype(np.float32)
  score = lambda table, history_BxT: table[history_BxT].sum(axis=1)
  whole = examples.whole_histories(data) if history_out else None
  # So many that without the history, and with it, some lists end early or do not.
  found = full_lists(score, ITEMS, table_NxN, examples, whole, WIDTH, ITEMS, sharding.make_mesh(MeshConfig()))
  earlier_Ux4 = data.items.reshape(users, 5)[:, :4]
  scores_UxN = table_NxN[earlier_Ux4[:, 2:]].sum(axis=1)
  if history_out:
    np.put_along_axis(scores_UxN, earlier_Ux4, -np.inf, axis=1)
  best_UxN = np.argsort(-scores_UxN, axis=1, kind='stable')
  there_UxN = np.isfinite(np.take_along_axis(scores_UxN, best_UxN, axis=1))
  assert there_UxN.all() != history_out
  np.testing.assert_array_equal(found, np.where(there_UxN, best_UxN, -1))


def test_a_large_catalogue_is_ranked_for_fewer_users_at_a_time(monkeypatch):
  data = interactions(np.random.default_rng(0).integers(ITEMS, size=(50, 5)), ITEMS)
  examples = splits.test_examples(data, 20)
  table_NxN = np.random.default_rng(1).random((ITEMS, ITEMS)).astype(np.float32)
  users_at_a_time = []

  def scores(table, history_BxT):
    users_at_a_time.append(len(history_BxT))
    return table[history_BxT].sum(axis=1)

  mesh = sharding.make_mesh(MeshConfig())

  def found():
    ranks_3xU = full_ranking(lambda table, _, history_BxT: scores(table, history_BxT), ITEMS, mesh)(
      table_NxN, examples, WIDTH
    )[1]
    return ranks_3xU, full_lists(scores, ITEMS, table_NxN, examples, None, WIDTH, 10, mesh)

  at_once = found()
  monkeypatch.setattr(module, 'BATCH_SCORES', 7 * ITEMS + 3)
  for ours, expected in zip(found(), at_once, strict=True):
    np.testing.assert_array_equal(ours, expected)
  assert users_at_a_time == [50, 50, 7, 7]  # once for each program
