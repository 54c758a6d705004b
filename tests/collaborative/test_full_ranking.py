"""Every user once, with its own history and target, whatever the number of users and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.collaborative.full_ranking import EVALUATION_BATCH, full_ranking
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from tests.small_data import interactions

ITEMS, WIDTH = 30, 2


def scores(table_UxN, user_B, history_BxT, target_B):
  """Of the table, less for what was latest, and nothing but the target for user 0."""
  assert history_BxT.shape[1] == WIDTH
  had_BxN = jax.nn.one_hot(history_BxT, ITEMS).sum(axis=1)
  found_BxN = table_UxN[user_B] - had_BxN
  is_other_BxN = jnp.arange(ITEMS) != target_B[:, None]
  return jnp.where((user_B == 0)[:, None] & is_other_BxN, -jnp.inf, found_BxN)


@pytest.mark.parametrize('users', [3, 2 * EVALUATION_BATCH + 5])
def test_metrics_are_those_of_all_users(users):
  random = np.random.default_rng(users)
  data = interactions(random.integers(ITEMS, size=(users, 5)), ITEMS)
  table_UxN = random.random((users, ITEMS)).astype(np.float32)
  examples = splits.test_examples(data, 20)
  found, ranks_3xU = full_ranking(scores, sharding.make_mesh(MeshConfig()))(table_UxN, examples, WIDTH)
  adjusted_UxN = table_UxN.copy()
  for user, latest in enumerate(data.items.reshape(users, 5)[:, 2:4]):
    np.subtract.at(adjusted_UxN[user], latest, 1)
  target_U = examples.targets
  rank_U = (adjusted_UxN > adjusted_UxN[np.arange(users), target_U][:, None]).sum(axis=1)
  rank_U[0] = 0
  np.testing.assert_array_equal(ranks_3xU[0], rank_U)
  assert ranks_3xU.shape == (3, users) and (ranks_3xU[2] == 1).all()
  for k in (1, 5, 10, 20):
    assert found[f'recall@{k}'] == pytest.approx(np.mean(rank_U < k))
    assert found[f'ndcg@{k}'] == pytest.approx(np.sum((rank_U < k) / np.log2(rank_U + 2)) / users, rel=1e-5)
