"""The evaluator with a model that looks its log-probabilities up, against plain Python."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.data import splits
from letter_jax.decoding.user_batches import BUCKETS, UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation.evaluator import GeneratorEvaluator
from letter_jax.semantic_ids.ids import SemanticIds
from tests.small_data import distinct_codes, interactions

NUM_ITEMS, LEVELS, K = 25, 2, 6
KS = (1, 5, 10, 20)


def begin(params, items_BxC, codes_NxL):
  """Log-probabilities of a level's codes by the history's last item and its length."""
  length_B = (items_BxC >= 0).sum(axis=1)
  last_B = jnp.take_along_axis(items_BxC, length_B[:, None] - 1, axis=1)[:, 0]
  table_BxLxK = params[(last_B + 3 * length_B) % len(params)]

  def step(level, codes_BxW, cache):
    width = 1 if codes_BxW is None else codes_BxW.shape[1]
    return jnp.repeat(table_BxLxK[:, None, level], width, axis=1), cache

  return step, jnp.zeros((len(items_BxC), 1))


def score(params, history, codes):
  table_LxK = params[(history[-1] + 3 * len(history)) % len(params)]
  return float(sum(table_LxK[level, code] for level, code in enumerate(codes)))


@pytest.fixture(scope='module')
def params():
  return -np.random.default_rng(0).exponential(2.0, (31, LEVELS, K)).astype(np.float32)


@pytest.fixture(scope='module')
def examples():
  """43 users with histories of 20 to 1 items: every bucket has some; user 0, who fills up batches, the longest."""
  random = np.random.default_rng(1)
  lengths = np.concatenate([np.arange(20, 0, -1), random.integers(1, 8, 23)]) + 1
  data = interactions([random.integers(0, NUM_ITEMS, length) for length in lengths], NUM_ITEMS)
  examples = splits.test_examples(data, 20)
  assert set(np.searchsorted(BUCKETS, examples.lengths).tolist()) == set(range(len(BUCKETS)))
  return examples


def evaluator_of(codes_NxL, batch_size=8, beam=20):
  ids = SemanticIds(codes_NxL, int(codes_NxL.max()) + 1).place(sharding.make_mesh(MeshConfig()))
  batches = UserBatches(ids.mesh, batch_size)
  return GeneratorEvaluator(UserSearch(Search(begin, renormalise=False), ids, batches, beam))


def histories_and_targets(examples):
  return [
    (examples.items[start:end].tolist(), int(target))
    for start, end, target in zip(examples.start, examples.end, examples.targets)
  ]


def gain(place, k):
  return 1 / np.log2(place + 2) if place < k else 0.0


def averages(places_of_users):
  """Metrics where each user's rank is uniform over some places; no places where the target is not found."""
  result = {}
  for k in KS:
    result[f'recall@{k}'] = np.mean(
      [np.mean([place < k for place in places]) if places else 0.0 for places in places_of_users]
    )
    result[f'ndcg@{k}'] = np.mean(
      [np.mean([gain(place, k) for place in places]) if places else 0.0 for places in places_of_users]
    )
  return result


CODES_NxL = distinct_codes(NUM_ITEMS, LEVELS, K)
# Items 0 to 4 share an ID, 5 to 7 another; 19 distinct ones.
SHARED_NxL = CODES_NxL[np.r_[0, 0, 0, 0, 0, 5, 5, 5, 8:NUM_ITEMS]]


@pytest.fixture(scope='module')
def evaluator():
  return evaluator_of(CODES_NxL, beam=10)


@pytest.fixture(scope='module')
def evaluation(evaluator, params, examples):
  return evaluator.evaluate(params, examples, 'test')


def test_lists_are_the_best_items_of_each_user_in_order(evaluator, evaluation, params, examples):
  assert evaluation.items_UxK.shape == evaluation.scores_UxK.shape == (len(examples), 10)
  assert not evaluator.has_collisions
  for user, (history, _) in enumerate(histories_and_targets(examples)):
    scores = {item: score(params, history, CODES_NxL[item]) for item in range(NUM_ITEMS)}
    items = evaluation.items_UxK[user].tolist()
    assert len(set(items)) == 10
    np.testing.assert_allclose(evaluation.scores_UxK[user], [scores[item] for item in items], rtol=1e-5)
    # A narrow beam may lose items on the way, but it keeps the best with a table of two levels and beam 10 > K.
    assert items[0] == max(scores, key=scores.get)


def test_metrics_are_those_of_the_lists(evaluation, examples):
  places = []
  for items, (_, target) in zip(evaluation.items_UxK.tolist(), histories_and_targets(examples)):
    places.append([items.index(target)] if target in items else [])
  assert 3 < sum(map(bool, places)) < len(places) - 3
  assert evaluation.metrics == pytest.approx(averages(places), rel=1e-5)
  assert evaluation.string_match == pytest.approx(evaluation.metrics)


def test_validation_gives_the_same_metrics(evaluator, evaluation, params, examples):
  assert evaluator.validate(params, examples) == pytest.approx(evaluation.metrics)


@pytest.mark.parametrize('users', [1, 7, 8, 9, 43])
def test_every_user_is_decoded_exactly_once(evaluator, params, examples, users):
  chosen = examples.take(np.arange(users))
  seen = []
  for indices, weights, beams in evaluator.beams(params, chosen):
    assert len(indices) == len(weights) == len(beams.items_BxW) == 8
    assert set(weights.tolist()) <= {0, 1}
    seen += indices[weights > 0].tolist()
  assert sorted(seen) == list(range(users))


def test_metrics_do_not_depend_on_the_batch(evaluator, evaluation, params, examples):
  some = np.flatnonzero(examples.lengths <= 4)
  alone = evaluator_of(CODES_NxL, batch_size=5, beam=10).evaluate(params, examples.take(some), 'test')
  together = evaluator.evaluate(params, examples.take(some), 'test')
  assert alone.metrics == pytest.approx(together.metrics)
  np.testing.assert_array_equal(alone.items_UxK, evaluation.items_UxK[some])
  np.testing.assert_array_equal(together.items_UxK, evaluation.items_UxK[some])


def test_items_that_share_an_id_get_the_expected_rank_next_to_the_string_match(params, examples):
  evaluator = evaluator_of(SHARED_NxL)
  assert evaluator.has_collisions
  examples = examples.take(np.flatnonzero(examples.lengths <= 7))
  evaluation = evaluator.evaluate(params, examples, 'test')
  expected_places, string_places = [], []
  for user, (history, target) in enumerate(histories_and_targets(examples)):
    ids = sorted({tuple(row) for row in SHARED_NxL.tolist()}, key=lambda codes: -score(params, history, codes))
    groups = [[item for item in range(NUM_ITEMS) if tuple(SHARED_NxL[item]) == codes] for codes in ids]
    place = next(index for index, group in enumerate(groups) if target in group)
    ahead = sum(map(len, groups[:place]))
    expected_places.append(list(range(ahead, ahead + len(groups[place]))))
    string_places.append([place])
    assert evaluation.items_UxK[user].tolist() == sum(groups, [])[:20]
  assert any(len(places) > 1 for places in expected_places)
  assert evaluation.metrics == pytest.approx(averages(expected_places), rel=1e-5)
  assert evaluation.string_match == pytest.approx(averages(string_places), rel=1e-5)
  assert evaluation.string_match['recall@5'] > evaluation.metrics['recall@5']


def test_fewer_items_than_beams_leave_the_rest_of_the_list_empty(params, examples):
  few = dataclasses.replace(examples.take(np.flatnonzero(examples.lengths <= 2)), items=examples.items % 3)
  evaluation = evaluator_of(CODES_NxL[:3], beam=5).evaluate(params, few, 'test')
  assert (np.sort(evaluation.items_UxK[:, :3], axis=1) == [0, 1, 2]).all()
  assert (evaluation.items_UxK[:, 3:] == -1).all() and (evaluation.scores_UxK[:, 3:] == -np.inf).all()
  assert evaluation.metrics['recall@5'] == 1
