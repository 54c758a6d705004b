"""Which items a search may return: a subset of the catalogue, minus each user's own history.

A node of the trie is a candidate as long as some item below it is. Excluded items therefore never occupy a beam, and
searching among a few items is as exact as searching among all. Scores are unchanged: each is the model's score of the
item within the whole catalogue, so the result is a full ranking with the excluded items removed.

Shapes: N items, L levels, B users, H items in a user's history, W beams, at most C children of a node, at most S items
of a leaf.
"""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.decoding.beam_search import Allowed, Beams
from letter_jax.ops.top_k import take
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
  """The items that may be returned, as a pytree whose shapes do not depend on the choice: a new one compiles nothing.

  Attributes:
    allowed_N: bool, whether each item may be returned.
    below: for each of the levels 1 .. L, int32 [nodes of the level], the number of allowed items below each node.
  """

  allowed_N: jax.Array
  below: tuple[jax.Array, ...]

  @classmethod
  def of(cls, trie: ItemTrie, allowed_N: jax.Array | np.ndarray) -> 'Candidates':
    """The candidates `allowed_N`, bool [N]. Pure; takes a few milliseconds for a million items."""
    allowed_N = jnp.asarray(allowed_N, bool)
    # In the order of their leaves the items below a node are neighbours: a count is a difference of running sums.
    ahead = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(allowed_N[trie.item], dtype=jnp.int32)])
    first = jnp.arange(trie.num_leaves + 1) if trie.first_item is None else trie.first_item
    below: list[jax.Array] = []
    for level in reversed(range(trie.levels)):
      counts = ahead[first]
      below.insert(0, counts[1:] - counts[:-1])
      if trie.first_edge[level] is not None:
        first = first[trie.first_edge[level]]
    return cls(allowed_N, tuple(below))


def still_allowed(paths: Paths, candidates: Candidates, had_BxH: jax.Array) -> Allowed:
  """The `allowed` argument of `beam_search`: whether some item below a child may be returned.

  Args:
    had_BxH: int32, the items excluded for each user, each at most once in a row; negative where there is none.

  Returns:
    A pure function (level, child_BxWxC) -> bool [B, W, C].
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
      unroll=16 if isinstance(had_BxH.shape[1], int) else 1,  # H is symbolic under jax.export
    )
    return (child_BxWxC >= 0) & (below_BxWxC > had_BxWxC)

  return allowed


def without_items(scores_BxN: jax.Array, had_BxH: jax.Array) -> jax.Array:
  """Scores of the whole catalogue, float [B, N], with -inf for the items `had_BxH`; negative where there is none."""
  out_BxH = jnp.where(had_BxH >= 0, had_BxH, scores_BxN.shape[1])  # beyond the last item: dropped
  return scores_BxN.at[jnp.arange(had_BxH.shape[0])[:, None], out_BxH].set(-jnp.inf, mode='drop')


def best_items(
  beams: Beams, trie: ItemTrie, paths: Paths, candidates: Candidates, had_BxH: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The first W allowed items, in the order of their beams.

  Args:
    had_BxH: as in `still_allowed`.

  Returns:
    items_BxW int32, -1 where there are fewer; scores_BxW float32, -inf there.
  """
  batch, width = beams.leaves_BxW.shape
  if paths.largest_leaf == 1:
    return beams.items_BxW, beams.scores_BxW
  rank_N = cast(jax.Array, paths.rank_N)  # some items share an ID
  rank_S = jnp.arange(paths.largest_leaf, dtype=jnp.int32)
  item_BxP = item_trie.items_of_leaves(trie, beams.leaves_BxW[..., None], rank_S).reshape(batch, -1)
  places = item_BxP.shape[1]
  # The place of each item of the history if its leaf is on a beam, otherwise past the last place (and dropped).
  had_BxHxW = beams.leaves_BxW[:, None, :] == paths.nodes_NxL[jnp.maximum(had_BxH, 0), -1][..., None]
  on_beam_BxH = had_BxHxW.any(axis=-1) & (had_BxH >= 0)
  place_BxH = jnp.argmax(had_BxHxW, axis=-1) * paths.largest_leaf + rank_N[jnp.maximum(had_BxH, 0)]
  kept_BxP = (item_BxP >= 0) & candidates.allowed_N[jnp.maximum(item_BxP, 0)]
  kept_BxP = kept_BxP.at[jnp.arange(batch)[:, None], jnp.where(on_beam_BxH, place_BxH, places)].set(False, mode='drop')
  # The first W places that keep their item, in order: the earlier a place, the higher its priority.
  priority_BxW, place_BxW = jax.lax.top_k(jnp.where(kept_BxP, places - jnp.arange(places), 0), width)
  scores_BxW = take(beams.scores_BxW, place_BxW // paths.largest_leaf)
  return jnp.where(priority_BxW > 0, take(item_BxP, place_BxW), -1), jnp.where(priority_BxW > 0, scores_BxW, -jnp.inf)
