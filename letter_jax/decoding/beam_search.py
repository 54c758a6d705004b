"""Constrained beam search: the best semantic IDs of a catalogue under any model that scores codes level by level.

Only children of live trie nodes are ever candidates, and no two beams hold the same node, so the result never contains
an illegal or a duplicate item, whatever the model returns.

Shapes: B users, L levels, W beams of this level, V beams of the next, at most C children of a node, K codes per level.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from letter_jax.ops.top_k import take, top_k
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie

# (level, codes of the previous level or None, cache) -> (log-probabilities, cache); see `beam_search`.
Step = Callable[[int, jax.Array | None, Any], tuple[jax.Array, Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
  """The result of a search, best first.

  Attributes:
    items_BxW: int32, item ids (the lowest of those that share an ID); -1 where fewer than W are legal.
    leaves_BxW: int32, leaves of the trie, each at most once; -1 where missing.
    scores_BxW: float32, sum of the L log-probabilities; -inf where missing.
  """

  items_BxW: jax.Array
  leaves_BxW: jax.Array
  scores_BxW: jax.Array


# (level, child_BxWxC) -> bool [B, W, C]: which of these nodes of level + 1 may be taken; -1 marks a missing node.
Allowed = Callable[[int, jax.Array], jax.Array]


def beam_search(
  step: Step,
  cache: Any,
  trie: ItemTrie,
  beam: int,
  batch: int,
  renormalise: bool = False,
  allowed: Allowed | None = None,
) -> Beams:
  """Finds the `beam` best items for each of `batch` users. Pure; call it under jit, which unrolls the L steps.

  Users are independent, so on several devices call it inside `jax.shard_map`: otherwise XLA may gather all users'
  candidates on every device for the top-k (with the same result).

  Args:
    step: `step(level, codes_BxW, cache) -> (log_probs_BxWxK, cache)`. `level` is a Python int; `codes_BxW` has the
      int32 codes that the beams took at the previous level (None at level 0); the float32 log-probabilities of this
      level's codes are summed unchanged, and one that is not finite excludes its code. W is 1 at level 0 and then the
      number of beams that can exist; excluded beams continue with code 0.
    cache: pytree of arrays [B, W, ...], W = 1 here, reordered together with the beams. Data that all beams of a user
      share does not belong in it.
    trie: the legal semantic IDs.
    beam: beams kept at each level, and the W of the result.
    batch: B.
    renormalise: normalise the log-probabilities (or, equivalently, logits) over the children of each node, so that the
      scores of all semantic IDs form one distribution. For models trained with `catalogue_loss`.
    allowed: excludes candidates (see `candidates.still_allowed`) without changing the scores of the others.

  Returns:
    Beams, [B, beam]. Ties in the score go to the better parent, then to the lower code.

  Raises:
    ValueError: a beam or a batch below 1, or `step` returns log-probabilities of the wrong shape.
  """
  if beam < 1 or batch < 1:
    raise ValueError(f'beam is {beam} and batch is {batch}, expected at least 1')
  node_BxW = jnp.zeros((batch, 1), jnp.int32)
  score_BxW = jnp.zeros((batch, 1), jnp.float32)
  code_BxW: jax.Array | None = None
  for level in range(trie.levels):
    log_probs_BxWxK, cache = step(level, code_BxW, cache)
    width = node_BxW.shape[1]
    if log_probs_BxWxK.shape[:2] != (batch, width) or log_probs_BxWxK.shape[2] < trie.codebook_size:
      raise ValueError(
        f'step returned log-probabilities {log_probs_BxWxK.shape} at level {level}, expected '
        f'({batch}, {width}, at least {trie.codebook_size})'
      )
    node_BxW, code_BxW, score_BxW, parent_BxW = extend(
      trie, level, node_BxW, score_BxW, log_probs_BxWxK, beam, renormalise, allowed
    )
    if level + 1 < trie.levels:
      cache = jax.tree.map(lambda leaf, parent_BxW=parent_BxW: take(leaf, parent_BxW), cache)

  missing = ((0, 0), (0, beam - node_BxW.shape[1]))
  leaves_BxW = jnp.pad(node_BxW, missing, constant_values=-1)
  return Beams(
    items_BxW=item_trie.items_of_leaves(trie, leaves_BxW),
    leaves_BxW=leaves_BxW,
    scores_BxW=jnp.pad(score_BxW, missing, constant_values=-jnp.inf),
  )


def extend(
  trie: ItemTrie,
  level: int,
  node_BxW: jax.Array,
  score_BxW: jax.Array,
  log_probs_BxWxK: jax.Array,
  beam: int,
  renormalise: bool = False,
  allowed: Allowed | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """One level of the search: the best children of all beams of each user, at a cost independent of the catalogue.

  Args:
    level: static, 0 .. L - 1; for the arguments not listed here see `beam_search`.
    node_BxW, score_BxW: int32 nodes of the level, -1 where there is none, and float32 scores.

  Returns:
    node_BxV, code_BxV, score_BxV: the new beams, best first; -1, 0 and -inf where there is none.
    parent_BxV: int32, index of the beam that each new beam extends.
  """
  batch, width = node_BxW.shape
  child_BxWxC, child_code_BxWxC, valid_BxWxC = item_trie.children(trie, level, node_BxW)
  log_prob_BxWxC = jnp.take_along_axis(log_probs_BxWxK, child_code_BxWxC, axis=2, mode='promise_in_bounds')
  if renormalise:
    possible_BxWxC = valid_BxWxC & jnp.isfinite(log_prob_BxWxC)
    log_prob_BxWxC = jax.nn.log_softmax(jnp.where(possible_BxWxC, log_prob_BxWxC, -jnp.inf), axis=-1)
  total_BxWxC = score_BxW[..., None] + log_prob_BxWxC
  taken_BxWxC = valid_BxWxC if allowed is None else valid_BxWxC & allowed(level, child_BxWxC)
  total_BxWxC = jnp.where(taken_BxWxC & jnp.isfinite(total_BxWxC), total_BxWxC, -jnp.inf)

  branching = trie.branching[level]
  beams = min(beam, trie.nodes[level + 1], width * branching)
  score_BxV, index_BxV = top_k(total_BxWxC.reshape(batch, -1), beams)
  alive_BxV = score_BxV > -jnp.inf
  node_BxV = jnp.where(alive_BxV, take(child_BxWxC.reshape(batch, -1), index_BxV), -1)
  code_BxV = jnp.where(alive_BxV, take(child_code_BxWxC.reshape(batch, -1), index_BxV), 0)
  return node_BxV, code_BxV, score_BxV, index_BxV // branching


def expand(beams: Beams, trie: ItemTrie, k: int) -> tuple[jax.Array, jax.Array]:
  """The first k items of the beams; items that share an ID are listed consecutively.

  Returns:
    items_BxK: int32, -1 where there are fewer than k; and scores_BxK: float32, -inf there.
  """
  width = beams.leaves_BxW.shape[1]
  last_BxW = jnp.cumsum(item_trie.leaf_sizes(trie, beams.leaves_BxW), axis=1)
  place_K = jnp.arange(k, dtype=jnp.int32)
  is_before_BxWxK = last_BxW[:, :, None] <= place_K
  beam_BxK = is_before_BxWxK.sum(axis=1, dtype=jnp.int32)
  exists_BxK = beam_BxK < width
  beam_BxK = jnp.minimum(beam_BxK, width - 1)
  taken_BxK = jnp.where(is_before_BxWxK, last_BxW[:, :, None], 0).max(axis=1)
  leaves_BxK = jnp.where(exists_BxK, take(beams.leaves_BxW, beam_BxK), -1)
  items_BxK = item_trie.items_of_leaves(trie, leaves_BxK, place_K - taken_BxK)
  return items_BxK, jnp.where(exists_BxK, take(beams.scores_BxW, beam_BxK), -jnp.inf)
