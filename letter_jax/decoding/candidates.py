"""Which items may come out of a search: some of the catalogue, and for each user none that he or she had.

A node of the trie is a candidate as long as an item below it is. What is ruled out is thus never on a beam, and a
search for the best of a few items is as good as one for the best of all. Scores do not change: each is the model's for
that item among the whole catalogue, so a list is what a full ranking would leave after the others are struck off it.

Shapes: N items, L levels, B users, H items that a user had, W beams, C children of a node at most, S items of a leaf.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.data import ragged
from letter_jax.decoding import item_trie
from letter_jax.decoding.beam_search import Beams
from letter_jax.decoding.item_trie import ItemTrie
from letter_jax.ops.top_k import take


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Paths:
  """Where the items of a trie are: a pytree, made once for a catalogue.

  Attributes:
    nodes_NxL: int32, nodes of levels 1 .. L that lead to each item.
    rank_N: int32, place of each item among those with its semantic ID; None where no two items share one.
    largest_leaf: static, S, most items with one semantic ID.
  """

  nodes_NxL: jax.Array
  rank_N: jax.Array | None
  largest_leaf: int = dataclasses.field(metadata={'static': True})

  @classmethod
  def of(cls, trie: ItemTrie) -> 'Paths':
    leaves_N = item_trie.leaves_of_items(trie)
    nodes_NxL = np.concatenate([item_trie.nodes_of_items(trie)[:, 1:], leaves_N[:, None]], axis=1)
    if trie.first_item is None:
      return cls(jnp.asarray(nodes_NxL), None, 1)
    first_item, rank_N = np.asarray(trie.first_item), np.empty(len(leaves_N), np.int32)
    rank_N[np.asarray(trie.item)] = ragged.positions(np.diff(first_item))
    return cls(jnp.asarray(nodes_NxL), jnp.asarray(rank_N), int(np.diff(first_item).max()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
  """The items that may come out, as a pytree whose shapes do not depend on them: nothing is compiled for a new choice.

  Attributes:
    allowed_N: bool.
    below: for levels 1 .. L, int32 [nodes of the level], allowed items below each node.
  """

  allowed_N: jax.Array
  below: tuple[jax.Array, ...]

  @classmethod
  def of(cls, trie: ItemTrie, allowed_N: jax.Array) -> 'Candidates':
    """Pure; a few milliseconds for a million items."""
    allowed_N = jnp.asarray(allowed_N, bool)
    # Items in the order of their leaves: those below a node are neighbours, and a difference of running sums.
    ahead = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(allowed_N[trie.item], dtype=jnp.int32)])
    first = jnp.arange(trie.num_leaves + 1) if trie.first_item is None else trie.first_item
    below = []
    for level in reversed(range(trie.levels)):
      counts = ahead[first]
      below.insert(0, counts[1:] - counts[:-1])
      if trie.first_edge[level] is not None:
        first = first[trie.first_edge[level]]
    return cls(allowed_N, tuple(below))


def still_allowed(paths: Paths, candidates: Candidates, had_BxH: jax.Array):
  """What `beam_search` asks: (level, child_BxWxC) -> bool [B, W, C], whether an item below a child may come out.

  Args:
    had_BxH: int32, the items that may not come out for each user, none twice; negative where there is none.
  """
  counts_BxH = (had_BxH >= 0) & candidates.allowed_N[jnp.maximum(had_BxH, 0)]
  had_nodes_BxHxL = jnp.where(counts_BxH[..., None], paths.nodes_NxL[jnp.maximum(had_BxH, 0)], -1)

  def allowed(level: int, child_BxWxC: jax.Array) -> jax.Array:
    below_BxWxC = candidates.below[level].at[jnp.maximum(child_BxWxC, 0)].get(mode='promise_in_bounds')
    count = lambda had_BxWxC, node_B: (had_BxWxC + (child_BxWxC == node_B[:, None, None]), None)
    had_BxWxC, _ = jax.lax.scan(
      count,
      jnp.zeros_like(child_BxWxC),
      had_nodes_BxHxL[..., level].T,
      unroll=16 if isinstance(had_BxH.shape[1], int) else 1,
    )  # jax.export leaves H open
    return (child_BxWxC >= 0) & (below_BxWxC > had_BxWxC)

  return allowed


def best_items(
  beams: Beams, trie: ItemTrie, paths: Paths, candidates: Candidates, had_BxH: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The first W items that may come out, in the order of their beams.

  Returns:
    items_BxW int32, -1 where there are fewer; scores_BxW float32, -inf there.
  """
  batch, width = beams.leaves_BxW.shape
  if paths.largest_leaf == 1:
    return beams.items_BxW, beams.scores_BxW
  rank_S = jnp.arange(paths.largest_leaf, dtype=jnp.int32)
  item_BxP = item_trie.items_of_leaves(trie, beams.leaves_BxW[..., None], rank_S).reshape(batch, -1)
  places = item_BxP.shape[1]
  # Where an item of the history stands, if its leaf is on a beam; else behind the last place.
  had_BxHxW = beams.leaves_BxW[:, None, :] == paths.nodes_NxL[jnp.maximum(had_BxH, 0), -1][..., None]
  is_there_BxH = had_BxHxW.any(axis=-1) & (had_BxH >= 0)
  place_BxH = jnp.argmax(had_BxHxW, axis=-1) * paths.largest_leaf + paths.rank_N[jnp.maximum(had_BxH, 0)]
  there_BxP = (item_BxP >= 0) & candidates.allowed_N[jnp.maximum(item_BxP, 0)]
  there_BxP = there_BxP.at[jnp.arange(batch)[:, None], jnp.where(is_there_BxH, place_BxH, places)].set(
    False, mode='drop'
  )
  # The first W places that hold an item, in order.
  found_BxW, place_BxW = jax.lax.top_k(jnp.where(there_BxP, places - jnp.arange(places), 0), width)
  scores_BxW = take(beams.scores_BxW, place_BxW // paths.largest_leaf)
  return (jnp.where(found_BxW > 0, take(item_BxP, place_BxW), -1), jnp.where(found_BxW > 0, scores_BxW, -jnp.inf))
