"""Searches among some of the items, against a full ranking with the other items removed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.decoding.beam_search import beam_search
from letter_jax.decoding.candidates import Candidates, best_items, still_allowed
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths
from tests.small_data import distinct_codes

ITEMS, LEVELS, K, USERS = 60, 3, 6, 7
CODES_NxL = distinct_codes(ITEMS, LEVELS, K)
# Every third item shares the ID of the one before; items 30 to 36 have one ID.
SHARED_NxL = CODES_NxL[np.where(np.arange(ITEMS) % 3 == 1, np.arange(ITEMS) - 1, np.arange(ITEMS))]
SHARED_NxL[30:37] = SHARED_NxL[30]


def search(table_BxLxK, codes_NxL, allowed_N, had_BxH, beam, renormalise, room=False):
  @jax.jit
  def run(table_BxLxK, trie, paths, candidates, had_BxH):
    def step(level, codes_BxW, cache):
      width = 1 if codes_BxW is None else codes_BxW.shape[1]
      return jnp.repeat(table_BxLxK[:, None, level], width, axis=1), cache

    beams = beam_search(
      step, None, trie, beam, len(table_BxLxK), renormalise, still_allowed(paths, candidates, had_BxH)
    )
    return best_items(beams, trie, paths, candidates, had_BxH)

  trie = ItemTrie.build_on_host(codes_NxL)
  paths = Paths.of(trie)
  if room:
    trie, paths = trie.with_room(K), paths.with_room()
    allowed_N = np.pad(allowed_N, (0, trie.num_items - len(allowed_N)))
  trie, paths = jax.tree.map(jnp.asarray, (trie, paths))
  items, scores = run(table_BxLxK, trie, paths, Candidates.of(trie, allowed_N), once(had_BxH))
  return np.asarray(items), np.asarray(scores)


def once(had_BxH):
  """`had_BxH` with every item at most once in a row."""
  return np.array(
    [[item if item not in row[:place] else -1 for place, item in enumerate(row)] for row in had_BxH.tolist()], np.int32
  )


def scores_of(table_LxK, codes_NxL, renormalise):
  """The scores of all items within the whole catalogue."""
  scores = []
  for row in codes_NxL.tolist():
    score = 0.0
    for level, code in enumerate(row):
      siblings = {other[level] for other in codes_NxL.tolist() if other[:level] == row[:level]}
      norm = np.log(sum(np.exp(table_LxK[level, sibling]) for sibling in siblings)) if renormalise else 0
      score += table_LxK[level, code] - norm
    scores.append(score)
  return np.array(scores)


def full_ranking(table_LxK, codes_NxL, renormalise, allowed_N, had):
  """[(item, score)] of the items that are not excluded, best first; within one ID, the lowest item first."""
  scores = scores_of(table_LxK, codes_NxL, renormalise)
  left = [item for item in range(len(codes_NxL)) if allowed_N[item] and item not in had]
  return sorted(((item, scores[item]) for item in left), key=lambda pair: (-round(pair[1], 4), pair[0]))


def had_of(random):
  had_BxH = random.integers(0, ITEMS, (USERS, 9)).astype(np.int32)
  had_BxH[0] = -1
  had_BxH[1, 3:] = had_BxH[1, 0]  # the same item again and again
  return had_BxH


@pytest.mark.parametrize('room', [False, True], ids=['', 'with room'])
@pytest.mark.parametrize('renormalise', [False, True])
@pytest.mark.parametrize('codes_NxL', [CODES_NxL, SHARED_NxL], ids=['distinct', 'shared'])
def test_the_result_is_the_full_ranking_without_the_excluded_items(codes_NxL, renormalise, room):
  random = np.random.default_rng(5)
  table_BxLxK = -random.exponential(2.0, (USERS, LEVELS, K)).astype(np.float32)
  allowed_N, had_BxH = random.random(ITEMS) < 0.6, had_of(random)
  allowed_N[31:34] = [True, False, True]
  had_BxH[2, :3] = [31, 0, 1]
  items, scores = search(table_BxLxK, codes_NxL, allowed_N, had_BxH, ITEMS, renormalise, room)
  for user in range(USERS):
    expected = full_ranking(table_BxLxK[user], codes_NxL, renormalise, allowed_N, had_BxH[user])
    assert items[user, : len(expected)].tolist() == [item for item, _ in expected]
    np.testing.assert_allclose(scores[user, : len(expected)], [score for _, score in expected], rtol=1e-4)
    assert (items[user, len(expected) :] == -1).all() and (scores[user, len(expected) :] == -np.inf).all()


def test_a_narrow_beam_is_not_filled_with_excluded_items():
  """The model prefers the items that the user had, each with a different prefix."""
  codes_NxL = np.array([[code, 0, 0] for code in range(K)] + [[0, 1, 0], [1, 1, 0]], np.int32)
  table_LxK = np.log(np.array([[0.3, 0.25, 0.2, 0.15, 0.09, 0.01], [0.9, 0.1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]) + 1e-9)
  items, _ = search(
    table_LxK[None].astype(np.float32), codes_NxL, np.ones(8, bool), np.array([[0, 2, 3, 4, 5, 1]]), 2, False
  )
  assert items.tolist() == [[6, 7]]
  items, _ = search(table_LxK[None].astype(np.float32), codes_NxL, np.arange(8) == 5, np.array([[-1]]), 2, False)
  assert items.tolist() == [[5, -1]]


def test_a_different_choice_of_items_compiles_nothing():
  trie = ItemTrie.build(CODES_NxL)
  shapes = [jax.tree.map(jnp.shape, Candidates.of(trie, np.arange(ITEMS) < count)) for count in (1, 50)]
  assert shapes[0] == shapes[1]
  assert jax.tree.structure(Paths.of(trie)) == jax.tree.structure(Paths.of(trie))


def test_catalogues_of_about_the_same_size_have_one_shape():
  grown_NxL = np.concatenate([CODES_NxL[:-4], distinct_codes(90, LEVELS, K)[-2:]])
  tries = [ItemTrie.build_on_host(codes_NxL) for codes_NxL in (CODES_NxL, CODES_NxL[:-4], grown_NxL)]
  shapes = [jax.tree.map(jnp.shape, (trie.with_room(K), Paths.of(trie).with_room())) for trie in tries]
  structures = {jax.tree.structure((trie.with_room(K), Paths.of(trie).with_room())) for trie in tries}
  assert shapes[0] == shapes[1] == shapes[2] and len(structures) == 1
  assert len({trie.num_items for trie in tries}) == 3


def test_items_below_each_node_are_counted():
  allowed_N = np.random.default_rng(0).random(ITEMS) < 0.5
  for codes_NxL in (CODES_NxL, SHARED_NxL):
    trie = ItemTrie.build(codes_NxL)
    nodes_NxL = np.asarray(Paths.of(trie).nodes_NxL)
    for level, below in enumerate(Candidates.of(trie, allowed_N).below):
      assert len(below) == trie.nodes[level + 1]
      np.testing.assert_array_equal(below, np.bincount(nodes_NxL[allowed_N, level], minlength=len(below)))
