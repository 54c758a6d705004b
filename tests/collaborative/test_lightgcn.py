"""LightGCN's graph and propagation against dense linear algebra, its loss, its ranking, its training and resuming."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.collaborative import lightgcn
from letter_jax.collaborative.lightgcn_training import bpr_sum, train_lightgcn
from letter_jax.configuration import LightGCNConfig
from letter_jax.data import splits
from letter_jax.evaluation import metrics, popularity
from tests.small_data import config_with, interactions, relative_error

CONFIG = LightGCNConfig(dim=4, layers=3, l2=0.01)


def random_interactions(users=9, num_items=12, seed=0):
  """With repeated items, and users of 2 items only: both held out, so they are nodes without edges."""
  random = np.random.default_rng(seed)
  sequences = [random.integers(num_items - 2, size=random.integers(4, 12)) for _ in range(users)]
  return interactions([*sequences, [0, 1]], num_items)


def dense_training_matrix(data):
  R_UxN = np.zeros((len(data.lengths), data.num_items))
  for user, (first, end) in enumerate(zip(data.offsets[:-1], data.offsets[1:])):
    R_UxN[user, data.items[first : end - 2]] = 1
  return R_UxN


def dense_embeddings(R_UxN, nodes_MxD, layers):
  """Equations 6 to 8 as they stand."""
  users, items = R_UxN.shape
  A = np.block([[np.zeros((users, users)), R_UxN], [R_UxN.T, np.zeros((items, items))]])
  degree = A.sum(axis=1)
  scale = np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0)
  smoothing = scale[:, None] * A * scale
  return sum(np.linalg.matrix_power(smoothing, k) for k in range(layers + 1)) @ nodes_MxD / (layers + 1)


@pytest.fixture(scope='module')
def example():
  data = random_interactions()
  graph = lightgcn.build_graph(data)
  params = lightgcn.initial_parameters(CONFIG, graph, jax.random.key(1))
  return data, graph, params


def joined(pair):
  return np.concatenate([np.asarray(rows) for rows in pair])


@pytest.mark.parametrize('layers', [0, 1, 3])
def test_propagation_is_that_of_the_dense_adjacency(example, layers):
  data, graph, params = example
  found = jax.jit(lambda params, graph: lightgcn.embeddings(dataclasses.replace(CONFIG, layers=layers), params, graph))(
    params, graph
  )
  own = joined((params['user_embeddings'], params['item_embeddings']))
  assert joined(found).dtype == np.float32
  assert relative_error(joined(found), dense_embeddings(dense_training_matrix(data), own, layers)) < 1e-6


def test_gradients_are_those_of_the_dense_adjacency_and_reach_both_sides(example):
  data, graph, params = example
  weights = np.random.default_rng(2).normal(size=(len(data.lengths) + data.num_items, CONFIG.dim)).astype(np.float32)

  def weighted(params, graph):
    # Of users only, so that what items get has come through the edges.
    return jnp.sum(lightgcn.embeddings(CONFIG, params, graph)[0] ** 2 * weights[: len(data.lengths)])

  found = jax.jit(jax.grad(weighted))(params, graph)
  R_UxN = dense_training_matrix(data)
  identity = np.eye(len(weights))
  smoothing = dense_embeddings(R_UxN, identity, CONFIG.layers)[: len(data.lengths)]
  own = joined((params['user_embeddings'], params['item_embeddings']))
  expected = smoothing.T @ (2 * (smoothing @ own) * weights[: len(data.lengths)])
  assert relative_error(joined((found['user_embeddings'], found['item_embeddings'])), expected) < 1e-5
  degree_N = R_UxN.sum(axis=0)
  assert (np.abs(np.asarray(found['item_embeddings'])).sum(axis=1) > 0).tolist() == (degree_N > 0).tolist()
  assert (np.abs(np.asarray(found['user_embeddings'])).sum(axis=1) > 0).all()


def test_nodes_without_edges_keep_a_share_of_their_own(example):
  data, graph, params = example
  users, items = lightgcn.embeddings(CONFIG, params, graph)
  assert graph.degree_U[-1] == 0 and graph.item_scale_N[-1] == 0
  np.testing.assert_allclose(users[-1], params['user_embeddings'][-1] / 4, rtol=1e-6)
  np.testing.assert_allclose(items[-1], params['item_embeddings'][-1] / 4, rtol=1e-6)


def test_held_out_interactions_are_no_edges():
  data = random_interactions()
  moved = data.items.copy()
  for back in (1, 2):
    at = data.offsets[1:] - back
    moved[at] = (data.items[at] + 5) % data.num_items
  changed = dataclasses.replace(data, items=moved)
  for ours, expected in zip(
    jax.tree.leaves(lightgcn.build_graph(changed)), jax.tree.leaves(lightgcn.build_graph(data)), strict=True
  ):
    np.testing.assert_array_equal(ours, expected)
  moved[data.offsets[0]] = 11  # of the training: seen
  assert 11 in lightgcn.build_graph(dataclasses.replace(data, items=moved)).to_users.source_E


def test_edges_are_distinct_and_sorted_both_ways(example):
  data, graph, _ = example
  pairs = np.argwhere(dense_training_matrix(data))  # by user, then item
  np.testing.assert_array_equal(np.stack([graph.to_users.destination_E, graph.to_users.source_E], axis=1), pairs)
  by_item = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
  np.testing.assert_array_equal(np.stack([graph.to_items.source_E, graph.to_items.destination_E], axis=1), by_item)
  assert len(pairs) < (data.lengths - 2).sum()  # there are repeats


def test_negatives_are_uniform_over_what_a_user_did_not_train_on():
  # User 0 has the first and last items, user 1 a block, user 2 all of them.
  data = interactions([[0, 1, 6, 7, 0, 0], [2, 3, 4, 0, 0], [*range(8), 0, 0]], 8)
  graph = jax.device_put(lightgcn.build_graph(data))
  draws = 20_000
  user_B = np.repeat([0, 1, 2], draws)
  drawn_B = np.asarray(jax.jit(lightgcn.draw_unseen)(jax.random.key(0), graph, user_B))
  for user, unseen in ((0, [2, 3, 4, 5]), (1, [0, 1, 5, 6, 7])):
    counts = np.bincount(drawn_B[user_B == user], minlength=8)
    assert np.flatnonzero(counts).tolist() == unseen
    np.testing.assert_allclose(counts[unseen] / draws, 1 / len(unseen), atol=0.02)  # 5 deviations
  assert ((0 <= drawn_B) & (drawn_B < 8)).all()


def test_the_loss_is_that_of_the_formula(example):
  data, graph, params = example
  edge_B, weight_B, key = np.array([3, 0, 11, 0]), np.array([1, 1, 1, 0], np.float32), jax.random.key(5)
  total, count, terms = jax.jit(bpr_sum(CONFIG, jax.device_put(graph)))(params, (edge_B, weight_B), key)
  own = joined((params['user_embeddings'], params['item_embeddings'])).astype(np.float64)
  final = dense_embeddings(dense_training_matrix(data), own, CONFIG.layers)
  user_B, positive_B = graph.to_users.destination_E[edge_B], graph.to_users.source_E[edge_B]
  negative_B = np.asarray(lightgcn.draw_unseen(key, jax.device_put(graph), user_B))
  bpr = l2 = 0.0
  for user, positive, negative in list(zip(user_B, positive_B + len(data.lengths), negative_B + len(data.lengths)))[:3]:
    bpr += np.log1p(np.exp(-final[user] @ (final[positive] - final[negative])))
    l2 += CONFIG.l2 / 2 * sum((own[node] ** 2).sum() for node in (user, positive, negative))
  assert float(count) == 3
  assert float(terms['bpr'][0]) == pytest.approx(bpr, rel=1e-5)
  assert float(terms['l2'][0]) == pytest.approx(l2, rel=1e-5)
  assert float(total) == pytest.approx(bpr + l2, rel=1e-5)


def test_a_user_of_all_items_has_no_loss():
  graph = jax.device_put(lightgcn.build_graph(interactions([[0, 1, 2, 0, 0], [1, 0, 0]], 3)))
  params = lightgcn.initial_parameters(CONFIG, graph, jax.random.key(0))
  loss_sum = bpr_sum(CONFIG, graph)
  assert [
    float(loss_sum(params, (np.array([edge]), np.ones(1, np.float32)), jax.random.key(0))[1]) for edge in (0, 3)
  ] == [0, 1]


# Training on users who buy within one of several groups of items, all items about equally popular.

GROUPS, GROUP_SIZE, SEED = 8, 12, 42


def clustered_interactions(users=160, seed=0):
  random = np.random.default_rng(seed)
  return interactions(
    [user % GROUPS * GROUP_SIZE + random.permutation(GROUP_SIZE)[:7] for user in range(users)], GROUPS * GROUP_SIZE
  )


def lightgcn_config(**changes):
  settings = {
    'dim': 8,
    'layers': 2,
    'training.epochs': 8,
    'training.batch_size': 64,
    'training.learning_rate': 0.02,
    'training.evaluate_every_epochs': 2,
    'training.log_every_steps': 1,
    **{key.replace('__', '.'): value for key, value in changes.items()},
  }
  return config_with({f'collaborative.lightgcn.{key}': value for key, value in settings.items()}).collaborative.lightgcn


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  directory, data = tmp_path_factory.mktemp('lightgcn'), clustered_interactions()
  final, found, _ = train_lightgcn(lightgcn_config(), data, directory, seed=SEED)
  lines = [json.loads(line) for line in (directory / 'metrics.jsonl').read_text().splitlines()]
  return data, final, found, lines


def test_the_loss_falls_and_the_best_validation_is_kept(trained):
  _, _, found, lines = trained
  losses = [line['loss'] for line in lines if line['kind'] == 'train']
  assert len(losses) == 8 and losses[0] == pytest.approx(np.log(2), rel=0.1)
  assert losses[-1] < 0.6 * losses[0]
  validations = [line['ndcg@10'] for line in lines if line['kind'] == 'validation']
  assert len(validations) == 4
  assert found['history_out']['validation']['ndcg@10'] == pytest.approx(max(validations))


def test_it_beats_popularity(trained):
  data, _, found, _ = trained
  target = splits.validation_examples(data, 20).targets
  popular = metrics.summarize(popularity.popularity_metrics(popularity.training_counts(data), target)[0])
  # 7 items of the group are left to a user once the 5 of training are out; 10 of 96 by chance.
  assert popular['recall@10'] < 0.25
  found = found['history_out']
  assert found['validation']['recall@10'] > 0.8 and found['test']['recall@10'] > 0.8


def test_the_metrics_are_those_of_ranking_what_is_left(trained):
  data, (users_UxD, items_NxD), found, _ = trained
  assert users_UxD.shape == (160, 8) and items_NxD.shape == (96, 8)
  scores_UxN = np.asarray(users_UxD) @ np.asarray(items_NxD).T
  for split, held_out in (('validation', 2), ('test', 1)):
    ranks = []
    for user, end in enumerate(data.offsets[1:] - held_out):
      left = np.setdiff1d(np.arange(96), data.items[data.offsets[user] : end])
      ranks.append(np.sum(scores_UxN[user, left] > scores_UxN[user, data.items[end]]))
    for k in (1, 5, 10):
      assert found['history_out'][split][f'recall@{k}'] == pytest.approx(np.mean(np.array(ranks) < k), abs=1 / 160)


def test_one_epoch_and_one_more_are_two(tmp_path):
  data = clustered_interactions(users=60)
  whole, *_ = train_lightgcn(
    lightgcn_config(training__epochs=2, training__evaluate_every_epochs=1), data, tmp_path / 'whole', seed=SEED
  )
  one, *_ = train_lightgcn(
    lightgcn_config(training__epochs=1, training__evaluate_every_epochs=1), data, tmp_path / 'parts', seed=SEED
  )
  two, *_ = train_lightgcn(
    lightgcn_config(training__epochs=2, training__evaluate_every_epochs=1), data, tmp_path / 'parts', seed=SEED
  )
  assert not np.array_equal(joined(one), joined(two))
  np.testing.assert_array_equal(joined(two), joined(whole))
  lines = [json.loads(line) for line in (tmp_path / 'parts/metrics.jsonl').read_text().splitlines()]
  assert [line['epoch'] for line in lines if line['kind'] == 'train'] == [1, 2]


def test_what_was_held_out_does_not_change_what_is_learned(tmp_path):
  data = clustered_interactions(users=40)
  items = data.items.copy()
  at = np.concatenate([data.offsets[1:] - 1, data.offsets[1:] - 2])
  items[at] = (items[at] + GROUP_SIZE) % data.num_items
  config = lightgcn_config(training__epochs=1)
  ours, *_ = train_lightgcn(config, dataclasses.replace(data, items=items), tmp_path / 'changed', seed=SEED)
  expected, *_ = train_lightgcn(config, data, tmp_path / 'unchanged', seed=SEED)
  np.testing.assert_array_equal(joined(ours), joined(expected))
