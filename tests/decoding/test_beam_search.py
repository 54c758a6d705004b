"""Constrained beam search against scoring everything, and against the textbook's search in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.decoding.beam_search import Beams, beam_search, expand
from letter_jax.ops.top_k import top_k
from letter_jax.semantic_ids.item_trie import ItemTrie

USERS = 8
ROWS = 509


def random_tables(seed, codes_NxL):
  """float32 [users, levels, ROWS, K]: a model reads its log-probabilities off a row that the whole prefix picks."""
  random = np.random.default_rng(seed)
  return -random.exponential(2.0, (USERS, codes_NxL.shape[1], ROWS, codes_NxL.max() + 2)).astype(np.float32)


def with_ties_and_junk(table_BxLxRxK):
  """The table as it is for the first users, with ties for the next two, and 40% NaN and infinities for the last two."""
  random = np.random.default_rng(99)
  table_BxLxRxK = table_BxLxRxK.copy()
  table_BxLxRxK[-4:-2] = np.round(table_BxLxRxK[-4:-2])
  junk = random.choice([np.nan, -np.inf, np.inf], table_BxLxRxK[-2:].shape).astype(np.float32)
  table_BxLxRxK[-2:] = np.where(random.random(junk.shape) < 0.4, junk, table_BxLxRxK[-2:])
  return table_BxLxRxK


def search(table_BxLxRxK, trie, beam, renormalise=False):
  """Searches with a model whose cache is the prefix (and its row): wrong reordering gives wrong scores."""

  def run(table_BxLxRxK, trie):
    def step(level, codes_BxW, cache):
      if level:
        cache = {
          'prefix': cache['prefix'].at[:, :, level - 1].set(codes_BxW),
          'row': (cache['row'] * 31 + codes_BxW + 1) % ROWS,
        }
      log_probs_BxWxK = jax.vmap(lambda table, row: table[level, row])(table_BxLxRxK, cache['row'])
      seen.append((codes_BxW, cache))
      return log_probs_BxWxK, cache

    seen = []
    users = len(table_BxLxRxK)
    cache = {'prefix': jnp.full((users, 1, trie.levels), -1), 'row': jnp.zeros((users, 1), jnp.int32)}
    return beam_search(step, cache, trie, beam, users, renormalise), seen[-1][1]['prefix']

  beams, prefix = jax.jit(run)(table_BxLxRxK, trie)
  return jax.tree.map(np.asarray, beams), np.asarray(prefix)


def log_prob(table_LxRxK, prefix, code):
  row = 0
  for earlier in prefix:
    row = (row * 31 + earlier + 1) % ROWS
  return table_LxRxK[len(prefix), row, code]


def score_of(table_LxRxK, row):
  return sum((log_prob(table_LxRxK, row[:level], row[level]) for level in range(len(row))), np.float32(0))


def groups_of(codes_NxL):
  groups = {}
  for item, row in enumerate(codes_NxL.tolist()):
    groups.setdefault(tuple(row), []).append(item)
  return groups


def textbook(table_LxRxK, codes_NxL, beam):
  """[(score, first item, row)], best first: keep the best `beam` legal continuations; sorted() keeps ties in order."""
  groups = groups_of(codes_NxL)
  legal = {prefix[:level] for prefix in groups for level in range(len(prefix) + 1)}
  beams = [(np.float32(0), ())]
  for _ in range(codes_NxL.shape[1]):
    longer = []
    for score, prefix in beams:
      for code in range(table_LxRxK.shape[2]):
        if prefix + (code,) in legal:
          total = score + log_prob(table_LxRxK, prefix, code)
          if np.isfinite(total):
            longer.append((total, prefix + (code,)))
    beams = sorted(longer, key=lambda entry: -entry[0])[:beam]
  return [(score, groups[row][0], row) for score, row in beams]


def assert_beams_are(beams, user, expected):
  missing = beams.items_BxW.shape[1] - len(expected)
  assert beams.items_BxW[user].tolist() == [item for _, item, _ in expected] + [-1] * missing
  assert beams.scores_BxW[user].tolist() == [score for score, _, _ in expected] + [-np.inf] * missing
  leaves = beams.leaves_BxW[user]
  assert ((leaves == -1) == (beams.items_BxW[user] == -1)).all()


CATALOGUES = {
  'deep': np.random.default_rng(0).integers(0, 3, (40, 5)),
  'usual': np.unique(np.random.default_rng(1).integers(0, 6, (80, 4)), axis=0)[::-1],
  'shared IDs': np.random.default_rng(2).integers(0, 4, (60, 2)),
  'chains': np.random.default_rng(3).integers(0, 50, (30, 3)),
  'K = 2': np.random.default_rng(4).integers(0, 2, (9, 3)),
  'L = 1': np.array([[4], [0], [7], [2]]),
  'K = 2, L = 1': np.array([[1], [0]]),
  'one item': np.array([[2, 0, 1]]),
  'one item, K = 2, L = 1': np.array([[1]]),
}


@pytest.mark.parametrize('codes_NxL', CATALOGUES.values(), ids=CATALOGUES)
def test_a_beam_as_wide_as_the_catalogue_finds_exactly_the_best_items_in_order(codes_NxL):
  table_BxLxRxK = random_tables(10, codes_NxL)
  beams, _ = search(table_BxLxRxK, ItemTrie.build(codes_NxL), beam=len(codes_NxL) + 3)
  for user, table_LxRxK in enumerate(table_BxLxRxK):
    everything = [(score_of(table_LxRxK, row), items[0], row) for row, items in groups_of(codes_NxL).items()]
    assert_beams_are(beams, user, sorted(everything, reverse=True))


@pytest.mark.parametrize('codes_NxL', CATALOGUES.values(), ids=CATALOGUES)
@pytest.mark.parametrize('beam', [1, 5])
def test_a_small_beam_is_the_textbook_search(codes_NxL, beam):
  table_BxLxRxK = with_ties_and_junk(random_tables(11, codes_NxL))
  beams, _ = search(table_BxLxRxK, ItemTrie.build(codes_NxL), beam)
  assert beams.items_BxW.shape == beams.leaves_BxW.shape == beams.scores_BxW.shape == (USERS, beam)
  assert beams.items_BxW.dtype == beams.leaves_BxW.dtype == np.int32 and beams.scores_BxW.dtype == np.float32
  for user, table_LxRxK in enumerate(table_BxLxRxK):
    expected = textbook(table_LxRxK, codes_NxL, beam)
    assert_beams_are(beams, user, expected)
    assert len({row for _, _, row in expected}) == len(expected)


def test_a_large_codebook_is_the_textbook_search_too():
  codes_NxL = np.random.default_rng(5).integers(0, 300, (2000, 3))
  codes_NxL[:1000, 0] = codes_NxL[:1000, 0] % 7
  table_BxLxRxK = with_ties_and_junk(random_tables(12, codes_NxL))[3:5]
  trie = ItemTrie.build(codes_NxL)
  assert 20 * trie.branching[1] >= 2048
  beams, _ = search(table_BxLxRxK, trie, beam=20)
  for user, table_LxRxK in enumerate(table_BxLxRxK):
    assert_beams_are(beams, user, textbook(table_LxRxK, codes_NxL, beam=20))


def test_the_cache_follows_its_beam():
  codes_NxL = CATALOGUES['usual']
  beams, prefix_BxWxL = search(random_tables(13, codes_NxL), ItemTrie.build(codes_NxL), beam=7)
  found_prefixes = [{tuple(codes_NxL[item, :-1]) for item in row} for row in beams.items_BxW]
  for prefixes, cached_WxL in zip(found_prefixes, prefix_BxWxL.tolist()):
    assert prefixes <= {tuple(row[:-1]) for row in cached_WxL}
    assert len({tuple(row) for row in cached_WxL}) == len(cached_WxL)


def test_no_more_beams_are_carried_than_can_exist():
  codes_NxL = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1]])
  widths = []

  def step(level, codes_BxW, cache):
    widths.append(1 if codes_BxW is None else codes_BxW.shape[1])
    assert (codes_BxW is None) == (level == 0)
    return jnp.zeros((1, widths[-1], 2)), cache

  for beam in (50, 2):
    jax.eval_shape(lambda beam=beam: beam_search(step, (), ItemTrie.build(codes_NxL), beam, batch=1))
  assert widths == [1, 2, 3, 1, 2, 2]


@pytest.mark.parametrize('value', [np.nan, -np.inf, np.inf])
def test_a_model_without_finite_log_probabilities_gives_no_items(value):
  trie = ItemTrie.build(CATALOGUES['usual'])
  beams, _ = search(np.full((1, 4, ROWS, 6), value, np.float32), trie, beam=5)
  assert (beams.items_BxW == -1).all() and (beams.leaves_BxW == -1).all() and (beams.scores_BxW == -np.inf).all()


def test_scores_are_not_renormalised_over_the_legal_codes():
  table = np.log(np.full((1, 2, ROWS, 4), 0.25, np.float32))
  beams, _ = search(table, ItemTrie.build(np.array([[1, 3]])), beam=2)
  np.testing.assert_allclose(beams.scores_BxW, [[2 * np.log(0.25), -np.inf]], rtol=1e-6)


@pytest.mark.parametrize('codes_NxL', CATALOGUES.values(), ids=CATALOGUES)
def test_renormalised_scores_are_a_distribution_over_the_catalogue(codes_NxL):
  """Each conditional is divided by the sum over the codes that the catalogue has there, as scoring everything does."""
  table_BxLxRxK = random_tables(14, codes_NxL)
  beams, _ = search(table_BxLxRxK, ItemTrie.build(codes_NxL), len(codes_NxL), renormalise=True)
  groups = groups_of(codes_NxL)
  for user, table_LxRxK in enumerate(table_BxLxRxK):
    expected = {}
    for row, items in groups.items():
      conditionals = [
        (row[:level], {other[level] for other in groups if other[:level] == row[:level]}) for level in range(len(row))
      ]
      expected[items[0]] = sum(
        log_prob(table_LxRxK, prefix, row[len(prefix)])
        - np.log(sum(np.exp(log_prob(table_LxRxK, prefix, code)) for code in siblings))
        for prefix, siblings in conditionals
      )
    exists = beams.items_BxW[user] >= 0
    items, scores = beams.items_BxW[user][exists], beams.scores_BxW[user][exists]
    assert sorted(items) == sorted(expected)
    np.testing.assert_allclose(scores, [expected[item] for item in items], atol=1e-5)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)
    assert (beams.scores_BxW[user] == -np.sort(-beams.scores_BxW[user])).all()


def test_a_code_that_is_ruled_out_has_no_share_in_the_normalisation():
  table = np.zeros((1, 1, ROWS, 3), np.float32)
  table[0, 0, :, 1] = -np.inf
  beams, _ = search(table, ItemTrie.build(np.array([[0], [1], [2]])), beam=3, renormalise=True)
  assert beams.items_BxW.tolist() == [[0, 2, -1]]
  np.testing.assert_allclose(beams.scores_BxW, [[np.log(0.5), np.log(0.5), -np.inf]], rtol=1e-6)


def test_log_probabilities_of_the_wrong_shape_are_refused():
  trie = ItemTrie.build(CATALOGUES['usual'])
  with pytest.raises(ValueError, match='level 0'):
    beam_search(lambda level, codes, cache: (jnp.zeros((1, 1, 5)), cache), (), trie, beam=2, batch=1)


@pytest.mark.parametrize('beam, batch', [(0, 1), (-1, 1), (2, 0)])
def test_a_beam_or_a_batch_of_none_is_refused(beam, batch):
  with pytest.raises(ValueError, match=f'beam is {beam} and batch is {batch}, expected at least 1'):
    beam_search(None, (), ItemTrie.build(CATALOGUES['usual']), beam, batch)


@pytest.mark.parametrize('name, k', [('shared IDs', 5), ('shared IDs', 60), ('usual', 4), ('one item', 3)])
def test_expanded_beams_list_the_items_of_shared_ids_one_after_the_other(name, k):
  codes_NxL = CATALOGUES[name]
  trie = ItemTrie.build(codes_NxL)
  beams, _ = search(with_ties_and_junk(random_tables(14, codes_NxL)), trie, beam=6)
  items_BxK, scores_BxK = jax.jit(expand, static_argnums=2)(beams, trie, k)
  assert items_BxK.shape == scores_BxK.shape == (USERS, k)
  assert items_BxK.dtype == np.int32 and scores_BxK.dtype == np.float32
  groups = groups_of(codes_NxL)
  for user in range(USERS):
    expected = [
      (item, score)
      for first, score in zip(beams.items_BxW[user], beams.scores_BxW[user])
      if first >= 0
      for item in groups[tuple(codes_NxL[first].tolist())]
    ]
    expected = (expected + [(-1, -np.inf)] * k)[:k]
    assert list(zip(items_BxK[user].tolist(), scores_BxK[user].tolist())) == expected


def test_each_user_is_searched_alone():
  codes_NxL = CATALOGUES['usual']
  trie, table_BxLxRxK = ItemTrie.build(codes_NxL), random_tables(15, codes_NxL)
  together, _ = search(table_BxLxRxK, trie, beam=5)
  alone, _ = search(table_BxLxRxK[3:4], trie, beam=5)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3:4], b), together, alone)
  assert isinstance(together, Beams)


@pytest.mark.parametrize('count, k', [(40, 20), (2048, 1), (2049, 20), (5000, 70), (20_001, 20)])
def test_top_k_is_a_stable_sort(count, k):
  random = np.random.default_rng(count)
  values_BxN = np.floor(random.normal(0, 3, (9, count))).astype(np.float32)
  alive_B = np.repeat([1.0, 0.5, 0.0004], 3)
  values_BxN[random.random(values_BxN.shape) > alive_B[:, None]] = -np.inf
  top_BxK, index_BxK = jax.jit(top_k, static_argnums=1)(values_BxN, k)
  expected_BxK = np.argsort(-values_BxN, axis=1, kind='stable')[:, :k]
  np.testing.assert_array_equal(index_BxK, expected_BxK)
  np.testing.assert_array_equal(top_BxK, np.take_along_axis(values_BxN, expected_BxK, axis=1))
