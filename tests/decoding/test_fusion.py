"""Several models' candidates and scores, against a full ranking by their sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.decoding.candidates import Candidates
from letter_jax.decoding.fusion import ScoredItems, fuse, scored_candidates, totals
from letter_jax.decoding.user_search import Search
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths
from tests.small_data import distinct_codes

ITEMS, LEVELS, K, USERS, HISTORY = 40, 3, 5, 6, 4
CODES_NxL = distinct_codes(ITEMS, LEVELS, K)
# Items 10 to 13 share an ID.
SHARED_NxL = CODES_NxL[np.where((np.arange(ITEMS) > 10) & (np.arange(ITEMS) < 14), 10, np.arange(ITEMS))]


def begin(params, items_BxC, codes_NxL):
  """A model whose score of a code depends on the history, the level and the code before it; its cache checks beams."""
  table_IxLxKxK = params
  last_B = jnp.maximum(items_BxC, 0).sum(axis=1) % len(table_IxLxKxK)

  def step(level, codes_BxW, cache):
    previous_BxW = jnp.zeros((len(last_B), 1), jnp.int32) if codes_BxW is None else codes_BxW
    np.testing.assert_array_equal(cache.shape[:2], (len(last_B), 1) if level == 1 - 1 else previous_BxW.shape)
    scores_BxWxK = table_IxLxKxK[last_B[:, None], level, previous_BxW] + cache[..., None]
    return scores_BxWxK, cache + 0.1 * previous_BxW

  return step, jnp.zeros((len(last_B), 1))


def generator_scores(table, last, codes_NxL, renormalise):
  totals = []
  for row in codes_NxL.tolist():
    total, cache, previous = 0.0, 0.0, 0
    for level, code in enumerate(row):
      scores = table[last, level, previous] + cache
      siblings = sorted({other[level] for other in codes_NxL.tolist() if other[:level] == row[:level]})
      total += scores[code] - (np.log(np.exp(scores[siblings]).sum()) if renormalise else 0)
      cache, previous = cache + 0.1 * previous, code
    totals.append(total)
  return np.array(totals)


def dense_scores(params, items_BxC):
  return params[jnp.maximum(items_BxC, 0).sum(axis=1) % len(params)]


def _best(scores_N, items, count):
  return set(sorted(items, key=lambda item: -scores_N[item])[:count])


@pytest.mark.parametrize('codes_NxL', [CODES_NxL, SHARED_NxL], ids=['distinct', 'shared'])
@pytest.mark.parametrize('renormalise', [False, True])
@pytest.mark.parametrize('width', [7, ITEMS])
@pytest.mark.parametrize('partners', [1, 2])
def test_candidates_have_the_scores_of_all_models(codes_NxL, renormalise, width, partners):
  random = np.random.default_rng(0)
  table = random.normal(size=(3, LEVELS, K, K)).astype(np.float32)
  dense = [random.normal(size=(5 + partner, ITEMS)).astype(np.float32) for partner in range(partners)]
  histories = random.integers(ITEMS, size=(USERS, HISTORY)).astype(np.int32)
  histories[0, 2:] = -1
  had = np.where(np.arange(3) < 2, histories[:, :3], -1)
  had[had[:, 0] == had[:, 1], 1] = -1
  allowed_N = np.arange(ITEMS) % 9 != 0
  trie = ItemTrie.build(codes_NxL)
  search = Search(begin, renormalise)
  run = jax.jit(functools.partial(scored_candidates, search, (dense_scores,) * partners, 5, width))
  scored = run(
    (table, tuple(dense)), histories, had, jnp.asarray(codes_NxL), trie, Paths.of(trie), Candidates.of(trie, allowed_N)
  )
  items_BxM, generator_BxM, dense_BxMxP = map(np.asarray, (scored.items_BxM, scored.generator_BxM, scored.dense_BxMxP))
  assert items_BxM.shape == (USERS, 5 + width)
  for user in range(USERS):
    sums = np.maximum(histories[user], 0).sum()
    of_generator = generator_scores(table, sums % 3, codes_NxL, renormalise)
    of_dense = np.stack([of[sums % len(of)] - np.log(np.exp(of[sums % len(of)]).sum()) for of in dense], axis=-1)
    left = [item for item in range(ITEMS) if allowed_N[item] and item not in had[user]]
    there = items_BxM[user] >= 0
    found = items_BxM[user][there].tolist()
    assert len(set(found)) == len(found) and set(found) <= set(left)
    beams = {item for item in items_BxM[user, :5].tolist() if item >= 0}
    others = [item for item in left if item not in beams]
    assert set(found) == beams | _best(of_dense.sum(axis=1), others, width)
    np.testing.assert_allclose(generator_BxM[user][there], of_generator[found], atol=1e-5)
    np.testing.assert_allclose(dense_BxMxP[user][there], of_dense[found], atol=1e-5)
    assert (generator_BxM[user][~there] == -np.inf).all()

    for weights_P in (np.zeros(partners, np.float32), np.arange(1, partners + 1, dtype=np.float32) * 0.7):
      items, scores = (np.asarray(part)[user] for part in fuse(scored, weights_P, 10))
      total = of_generator + of_dense @ weights_P
      expected = sorted(found, key=lambda item: -total[item])[:10]
      np.testing.assert_allclose(scores[: len(expected)], total[expected], atol=1e-5)
      assert set(items[: len(expected)].tolist()) <= set(found) and (items[len(expected) :] == -1).all()


def test_many_choices_of_weights_give_what_each_gives():
  random = np.random.default_rng(0)
  items = np.where(random.random((3, 8)) < 0.3, -1, random.integers(ITEMS, size=(3, 8)))
  there, generator, dense = items >= 0, random.normal(size=(3, 8)), random.normal(size=(3, 8, 2))
  scored = ScoredItems(
    *map(jnp.asarray, (items, np.where(there, generator, -np.inf), np.where(there[..., None], dense, -np.inf)))
  )
  weights_GxP = np.array([[0, 0], [0.5, 0], [0.3, 2.8]], np.float32)
  found_GxBxM = totals(scored, weights_GxP)
  for weights_P, found_BxM in zip(weights_GxP, found_GxBxM):
    np.testing.assert_array_equal(found_BxM, totals(scored, weights_P))
    np.testing.assert_allclose(found_BxM, np.where(there, generator + dense @ weights_P, -np.inf), atol=1e-5)


def test_a_user_with_fewer_items_than_asked_for():
  trie = ItemTrie.build(CODES_NxL)
  allowed_N = np.arange(ITEMS) < 3
  run = jax.jit(functools.partial(scored_candidates, Search(begin, True), (dense_scores,), 5, 5))
  scored = run(
    (np.zeros((3, LEVELS, K, K), np.float32), (np.zeros((5, ITEMS), np.float32),)),
    np.zeros((1, 2), np.int32),
    np.array([[1, -1]], np.int32),
    jnp.asarray(CODES_NxL),
    trie,
    Paths.of(trie),
    Candidates.of(trie, allowed_N),
  )
  items, scores = fuse(scored, np.ones(1, np.float32), 10)
  assert sorted(items[0].tolist()) == [-1] * 8 + [0, 2]
  assert np.isfinite(scores[0, :2]).all() and (scores[0, 2:] == -np.inf).all()
