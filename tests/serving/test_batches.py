"""How users share batches, and which items of a history may come out: on tables instead of a trained generator."""

import json
import queue

import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.decoding.fusion import FusedUserSearch
from letter_jax.decoding.user_batches import UserBatches
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.evaluation.first_purchases import FirstPurchases
from letter_jax.semantic_ids.ids import SemanticIds
from letter_jax.serving import jsonl
from letter_jax.serving import recommender as recommender_module
from letter_jax.serving.catalogue import Catalogue
from letter_jax.serving.recommender import Recommender
from letter_jax.system.errors import InputError
from tests.small_data import distinct_codes

ITEMS, LEVELS, K, ROWS, LENGTH = 40, 2, 8, 4, 12
CODES_NxL = distinct_codes(ITEMS, LEVELS, K)


def begin(table_IxLxK, items_BxC, codes_NxL):
  """Scores depend on the whole history, in its order, and in their last bits on its padding, as in real models."""
  weight_BxC = jnp.where(items_BxC >= 0, 1.3 ** jnp.arange(items_BxC.shape[1]), 0)
  of_user_BxLxK = jnp.einsum('bc,bclk->blk', weight_BxC, table_IxLxK[jnp.maximum(items_BxC, 0)])
  of_user_BxLxK *= 1 + 1e-6 * items_BxC.shape[1]

  def step(level, codes_BxW, cache):
    width = 1 if codes_BxW is None else codes_BxW.shape[1]
    return jnp.repeat(of_user_BxLxK[:, None, level], width, axis=1), cache

  return step, None


def dense_scores(table_IxN, items_BxC):
  return table_IxN[items_BxC[:, 0]]


@pytest.fixture(scope='module')
def make():
  """Makes recommenders, alone or of two models, whose lists are full rankings."""
  random = np.random.default_rng(0)
  table = random.normal(size=(ITEMS, LEVELS, K)).astype(np.float32)
  dense = random.normal(size=(ITEMS, ITEMS)).astype(np.float32)
  ids = SemanticIds(CODES_NxL, K)
  placed = ids.place(sharding.make_mesh(MeshConfig()))
  names = tuple(map(str, range(ITEMS)))
  catalogue = Catalogue(names, names, ids, ITEMS, True, FirstPurchases(np.ones((2, ITEMS), np.int64)))
  alone = UserSearch(Search(begin, renormalise=False), placed, UserBatches(placed.mesh, ROWS), ITEMS)
  fused = FusedUserSearch(alone, (dense_scores,), ITEMS)

  def recommender(partner=False, chosen=None):
    search, params = (fused, (table, (dense,), np.array([0.5], np.float32))) if partner else (alone, table)
    return Recommender(search, params, catalogue, LENGTH, chosen)

  return recommender


def random_histories(users, longest=30):
  random = np.random.default_rng(1)
  return [random.integers(ITEMS, size=random.integers(1, longest)).tolist() for _ in range(users)]


def test_the_arrays_of_a_user_do_not_depend_on_the_others(make, monkeypatch):
  recommender, histories, shapes = make(), random_histories(30), {}
  search = recommender._search.search

  def noted(params, items_BxC, had_BxH, candidates):
    for row, had in zip(items_BxC.tolist(), had_BxH.tolist()):
      if row[0] >= 0:
        history = tuple(item for item in row if item >= 0), tuple(sorted(item for item in had if item >= 0))
        shapes.setdefault(history, set()).add((items_BxC.shape, had_BxH.shape))
    return search(params, items_BxC, had_BxH, candidates)

  monkeypatch.setattr(recommender._search, 'search', noted)
  monkeypatch.setattr(recommender_module, 'EXCLUDED', (8,))
  for group in (histories, histories[::-1], *([history] for history in histories)):
    found = list(recommender.searches(group, rows=ROWS))
    assert sorted(user for users, _ in found for user in users.tolist()) == list(range(len(group)))
    assert all(len(users) <= ROWS for users, _ in found)
  assert len(shapes) == 30 and {len(of_user) for of_user in shapes.values()} == {1}
  assert len(set().union(*shapes.values())) >= 5
  for (latest, had), ((items, excluded),) in shapes.items():
    assert items[1] >= len(latest) and excluded[1] >= len(had) and items[0] == excluded[0] == ROWS


def bits(recommender, histories, rows):
  items_UxK, scores_UxK = np.zeros((2, len(histories), ITEMS))
  for users, (items, scores) in recommender.searches(histories, rows=rows):
    items_UxK[users], scores_UxK[users] = np.asarray(items)[: len(users)], np.asarray(scores)[: len(users)]
  return items_UxK.tobytes(), scores_UxK.tobytes()


@pytest.mark.parametrize('partner', [False, True])
def test_the_scores_of_a_user_do_not_depend_on_the_others_to_the_last_bit(make, partner):
  recommender, histories = make(partner), random_histories(30)
  together = bits(recommender, histories, ROWS)
  order = np.random.default_rng(2).permutation(len(histories))
  items, scores = (
    np.frombuffer(part).reshape(-1, ITEMS) for part in bits(recommender, [histories[user] for user in order], ROWS)
  )
  assert items[np.argsort(order)].tobytes() == together[0] and scores[np.argsort(order)].tobytes() == together[1]
  alone = [bits(recommender, [history], ROWS) for history in histories]
  assert tuple(b''.join(parts) for parts in zip(*alone)) == together


def test_answers_are_the_same_bytes_however_the_lines_arrive(make):
  """At once, one by one from a program that waits for each answer, and a few at a time."""
  recommender, users = make(), [*random_histories(20), [], ['who']]
  lines = [
    json.dumps({'user': user, 'history': list(map(str, history))}).encode() for user, history in enumerate(users)
  ]
  given = queue.Queue()
  waiting = jsonl.recommend_lines(recommender, jsonl.ready_chunks(iter(given.get, None)), ITEMS)
  one_by_one = []
  for line in lines:
    given.put(line)
    one_by_one += next(waiting)
  given.put(None)
  at_once, few = (
    [answer for chunk in jsonl.recommend_lines(recommender, chunks, ITEMS) for answer in chunk]
    for chunks in (jsonl.whole_chunks(lines), [list(enumerate(lines[:7])), list(enumerate(lines[7:]))])
  )
  assert [json.loads(answer.line)['user'] for answer in at_once] == list(range(len(users)))
  assert [answer.line for answer in one_by_one] == [answer.line for answer in at_once]
  assert [answer.line for answer in few] == [answer.line for answer in at_once]


@pytest.mark.parametrize('partner', [False, True])
def test_items_that_may_repeat(make, partner):
  recommender, histories = make(partner), [*random_histories(7, 16), [5, 5, 6], []]
  repeat, allow, deny = ['5', 6, *range(10, 20)], [item for item in range(ITEMS) if item % 4], [6, 7, 11]
  everything = recommender.recommend(histories, ITEMS, exclude_history=False)
  among = recommender.among(allow, deny, repeat=[*repeat, 'who'])
  found = recommender.recommend(histories, ITEMS, among=among)
  for history, all_items, all_scores, items, scores in zip(
    histories, everything.items_UxK.tolist(), everything.scores_UxK, found.items_UxK.tolist(), found.scores_UxK
  ):
    out = {item for item in history if item != 5 and not (item == 6 or 10 <= item < 20)}
    places = [place for place, item in enumerate(all_items) if item % 4 and item not in out and item not in deny]
    assert items == [all_items[place] for place in places] + [-1] * (ITEMS - len(places))
    np.testing.assert_allclose(scores[: len(places)], all_scores[places], rtol=1e-5)
  assert any(set(history) & set(items) for history, items in zip(histories, found.items_UxK.tolist()))
  # Other items that may repeat compile nothing.
  search = recommender._search._scored if partner else recommender._search._items
  compiled = search._cache_size()
  nothing = recommender.recommend(histories, ITEMS, among=recommender.among(repeat=[]))
  assert search._cache_size() == compiled
  plain = recommender.recommend(histories, ITEMS)
  assert nothing.items_UxK.tolist() == plain.items_UxK.tolist()


def test_the_default_is_that_of_the_recommender_unless_a_call_says(make):
  history = [[1, 2, 3]]
  for exclude_history in (False, True):
    recommender = make(chosen={'exclude_history': exclude_history})
    lists = {
      said: set(recommender.recommend(history, ITEMS, exclude_history=said).items_UxK[0].tolist())
      for said in (None, False, True)
    }
    assert not {1, 2, 3} & lists[True] and {1, 2, 3} <= lists[False] and lists[None] == lists[exclude_history]
    # Where items that may repeat are named, the others may not.
    among = recommender.among(repeat=[2])
    assert {1, 2, 3} & set(recommender.recommend(history, ITEMS, among=among).items_UxK[0].tolist()) == {2}
    with pytest.raises(InputError, match='names the items that may repeat; expected True, or no such items'):
      recommender.recommend(history, exclude_history=False, among=among)
