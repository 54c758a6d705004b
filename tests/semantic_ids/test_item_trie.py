"""The trie against plain Python sets and sorts."""

import time

import jax
import numpy as np
import pytest

from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie


def random_codes(seed, num_items, levels, codebook_size):
  return np.random.default_rng(seed).integers(0, codebook_size, (num_items, levels))


CATALOGUES = [
  random_codes(0, 60, 4, 5),
  random_codes(1, 200, 3, 4),
  random_codes(2, 300, 2, 300),
  random_codes(3, 50, 9, 2048),
  np.array([[1, 0, 3]]),
  np.array([[0], [1]]),
  np.array([[1]]),
  np.array([[0, 0], [0, 0], [0, 0]]),
]


@pytest.mark.parametrize('codes_NxL', CATALOGUES, ids=lambda codes: f'{codes.shape}')
def test_children_are_the_distinct_prefixes_in_lexicographic_order(codes_NxL):
  trie = ItemTrie.build(codes_NxL)
  levels = codes_NxL.shape[1]
  prefixes = [sorted({tuple(row[:level]) for row in codes_NxL.tolist()}) for level in range(levels + 1)]
  assert trie.nodes == tuple(map(len, prefixes))
  assert (trie.levels, trie.num_leaves, trie.num_items) == (levels, len(prefixes[-1]), len(codes_NxL))
  assert trie.codebook_size == codes_NxL.max() + 1
  for level in range(levels):
    node_1xW = np.append(np.arange(len(prefixes[level])), -1)[None].astype(np.int32)
    child, code, valid = map(np.asarray, jax.jit(item_trie.children, static_argnums=1)(trie, level, node_1xW))
    expected = {prefix: [] for prefix in prefixes[level]}
    for number, prefix in enumerate(prefixes[level + 1]):
      expected[prefix[:-1]].append((number, prefix[-1]))
    assert child.shape == code.shape == valid.shape == (1, len(expected) + 1, max(map(len, expected.values())))
    assert child.dtype == code.dtype == np.int32
    for node, edges in enumerate(expected.values()):
      is_child = valid[0, node]
      assert list(zip(child[0, node][is_child].tolist(), code[0, node][is_child].tolist())) == edges
    assert not valid[0, -1].any()
    assert (child[~valid] == -1).all() and (code[~valid] == 0).all()


@pytest.mark.parametrize('codes_NxL', CATALOGUES, ids=lambda codes: f'{codes.shape}')
def test_leaves_hold_their_items_in_ascending_order(codes_NxL):
  trie = ItemTrie.build(codes_NxL)
  groups = {}
  for item, row in enumerate(codes_NxL.tolist()):
    groups.setdefault(tuple(row), []).append(item)
  leaf_of_item = item_trie.leaves_of_items(trie)
  leaves_F = np.arange(-1, len(groups))
  sizes_F = np.asarray(item_trie.leaf_sizes(trie, leaves_F))
  items_FxP = np.asarray(item_trie.items_of_leaves(trie, leaves_F[:, None], np.arange(5)))
  assert sizes_F[0] == 0 and (items_FxP[0] == -1).all()
  for leaf, (_, items) in enumerate(sorted(groups.items())):
    assert sizes_F[leaf + 1] == len(items)
    assert (leaf_of_item[items] == leaf).all()
    assert items_FxP[leaf + 1].tolist() == (items + [-1] * 5)[:5]


@pytest.mark.parametrize('codes_NxL', CATALOGUES, ids=lambda codes: f'{codes.shape}')
def test_the_nodes_of_an_item_are_its_prefixes(codes_NxL):
  nodes_NxL = item_trie.nodes_of_items(ItemTrie.build(codes_NxL))
  assert nodes_NxL.dtype == np.int32 and nodes_NxL.shape == codes_NxL.shape
  for level in range(codes_NxL.shape[1]):
    prefixes = sorted({tuple(row[:level]) for row in codes_NxL.tolist()})
    assert [prefixes[node] for node in nodes_NxL[:, level]] == [tuple(row[:level]) for row in codes_NxL.tolist()]


def test_the_order_of_items_in_the_catalogue_changes_only_item_ids():
  codes_NxL = np.unique(random_codes(4, 100, 3, 8), axis=0)
  order_N = np.random.default_rng(5).permutation(len(codes_NxL))
  sorted_trie, shuffled_trie = ItemTrie.build(codes_NxL), ItemTrie.build(codes_NxL[order_N])
  assert jax.tree.structure(sorted_trie) == jax.tree.structure(shuffled_trie)
  for a, b in zip(sorted_trie.code, shuffled_trie.code):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(order_N[shuffled_trie.item], sorted_trie.item)


def test_a_million_items_take_seconds_and_few_bytes():
  codes_NxL = random_codes(6, 1_000_000, 4, 256).astype(np.int32)
  start = time.process_time()  # of this process alone: the machine may be busy
  trie = ItemTrie.build(codes_NxL)
  assert time.process_time() - start < 15
  assert sum(array.nbytes for array in jax.tree.leaves(trie)) < 16 * len(codes_NxL)


def test_the_cost_of_a_step_depends_on_the_branching_and_not_on_the_catalogue():
  def cost(levels):
    every_id = np.stack(np.meshgrid(*[np.arange(4)] * levels, indexing='ij'), axis=-1).reshape(-1, levels)
    step = jax.jit(item_trie.children, static_argnums=1)
    compiled = step.lower(ItemTrie.build(every_id), levels - 1, np.zeros((2, 3), np.int32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes, compiled.cost_analysis()['flops']

  assert cost(3) == cost(8)


@pytest.mark.parametrize(
  'codes_NxL', [np.zeros((0, 4), int), np.zeros((4, 0), int), np.zeros(4, int), np.zeros((2, 2)), np.array([[0, -1]])]
)
def test_an_invalid_catalogue_is_refused(codes_NxL):
  with pytest.raises(ValueError, match='semantic IDs must'):
    ItemTrie.build(codes_NxL)
