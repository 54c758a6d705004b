"""One ranking from two models: a generator of semantic IDs, and a dense model that scores every item at once.

Each model proposes its best items. For these candidates both log-likelihoods are exact: the dense model's is a softmax
over the catalogue, the generator's is computed by teacher forcing along the path of the item in the trie. The score of
a candidate is log p(generator) + weight * log p(dense model). Two models that err differently rank better together
than each does alone (LIGER, EnsRec).

Shapes: B users, N items, C items of a history, H excluded items, L levels, W candidates of each model, M = 2 W.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.decoding.beam_search import Step
from letter_jax.decoding.candidates import Candidates, without_items
from letter_jax.decoding.user_search import Search, UserSearch
from letter_jax.ops.top_k import take, top_k
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie, Paths

# (params, items_BxC) -> float32 [B, N], pure: the scores (logits) of all items as the next one of each history. Items
# are padded with negative numbers.
DenseScores = Callable[[Any, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoredItems:
  """The candidates of each user, each item at most once, in no particular order.

  Attributes:
    items_BxM: int32, -1 where there is none.
    generator_BxM, dense_BxM: float32, log-likelihoods of the items under the two models; -inf where there is none.
  """

  items_BxM: jax.Array
  generator_BxM: jax.Array
  dense_BxM: jax.Array


def score_items(
  step: Step, cache: Any, trie: ItemTrie, paths: Paths, codes_NxL: jax.Array, items_BxW: jax.Array, renormalise: bool
) -> jax.Array:
  """The generator's score of given items, by teacher forcing: float32 [B, W], equal to that of `beam_search`. Pure.

  Args:
    step, cache, renormalise: as for `beam_search`.
    trie, paths, codes_NxL: of the catalogue.
    items_BxW: int32, not negative.
  """
  codes_BxWxL, nodes_BxWxL = codes_NxL[items_BxW], paths.nodes_NxL[items_BxW]
  total_BxW = jnp.zeros(items_BxW.shape, jnp.float32)
  node_BxW = jnp.zeros((items_BxW.shape[0], 1), jnp.int32)
  for level in range(trie.levels):
    code_BxW = codes_BxWxL[..., level]
    log_probs_BxWxK, cache = step(level, None if level == 0 else codes_BxWxL[..., level - 1], cache)
    if renormalise:
      _, child_code_BxWxC, valid_BxWxC = item_trie.children(trie, level, node_BxW)
      child_BxWxC = jnp.take_along_axis(log_probs_BxWxK, child_code_BxWxC, axis=2, mode='promise_in_bounds')
      normaliser_BxW = jax.nn.logsumexp(jnp.where(valid_BxWxC, child_BxWxC, -jnp.inf), axis=-1)
      total_BxW -= normaliser_BxW
    log_probs_BxWxK = jnp.broadcast_to(log_probs_BxWxK, (*items_BxW.shape, log_probs_BxWxK.shape[-1]))
    total_BxW += jnp.take_along_axis(log_probs_BxWxK, code_BxW[..., None], axis=2, mode='promise_in_bounds')[..., 0]
    node_BxW = nodes_BxWxL[..., level]
    if level == 0:  # from one beam to W
      cache = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*items_BxW.shape, *leaf.shape[2:])), cache)
  return total_BxW


def scored_candidates(
  search: Search,
  dense_scores: DenseScores,
  width: int,
  params: tuple[Any, Any],
  items_BxC: jax.Array,
  had_BxH: jax.Array,
  codes_NxL: jax.Array,
  trie: ItemTrie,
  paths: Paths,
  candidates: Candidates,
) -> ScoredItems:
  """The best allowed items of the generator and of the dense model, with the scores of both. Pure.

  Args:
    search: of the generator.
    dense_scores: of the dense model.
    width: W, candidates of each model, at most N.
    params: of the generator, and of the dense model.
    items_BxC, had_BxH, codes_NxL, trie, paths, candidates: as for `Search.items`.
  """
  generator_params, dense_params = params
  found_BxW, found_scores_BxW = search.items(
    width, generator_params, items_BxC, had_BxH, codes_NxL, trie, paths, candidates
  )
  dense_BxN = jax.nn.log_softmax(dense_scores(dense_params, items_BxC).astype(jnp.float32), axis=-1)
  allowed_BxN = jnp.where(candidates.allowed_N, dense_BxN, -jnp.inf)
  best_BxW, best_item_BxW = top_k(without_items(allowed_BxN, had_BxH), width)
  step, cache = search.begin(generator_params, items_BxC, codes_NxL)
  generator_BxW = score_items(step, cache, trie, paths, codes_NxL, best_item_BxW, search.renormalise)

  found_twice_BxW = (best_item_BxW[:, :, None] == found_BxW[:, None, :]).any(axis=-1)
  there_BxW = jnp.isfinite(best_BxW) & ~found_twice_BxW
  items_BxM = jnp.concatenate([found_BxW, jnp.where(there_BxW, best_item_BxW, -1)], axis=1)
  generator_BxM = jnp.concatenate([found_scores_BxW, jnp.where(there_BxW, generator_BxW, -jnp.inf)], axis=1)
  dense_BxM = jnp.where(items_BxM >= 0, take(dense_BxN, jnp.maximum(items_BxM, 0)), -jnp.inf)
  return ScoredItems(items_BxM, generator_BxM, dense_BxM)


def fuse(scored: ScoredItems, weight: jax.Array | float, k: int) -> tuple[jax.Array, jax.Array]:
  """The k best candidates by log p(generator) + weight * log p(dense model). Pure.

  Args:
    scored: the candidates.
    weight: of the dense model, not negative.
    k: at most M.

  Returns:
    items int32 and scores float32 [B, k], best first; -1 and -inf where there are fewer.
  """
  missing_BxM = scored.items_BxM < 0
  total_BxM = jnp.where(missing_BxM, -jnp.inf, scored.generator_BxM + weight * scored.dense_BxM)
  scores_BxK, place_BxK = jax.lax.top_k(total_BxM, k)
  return jnp.where(scores_BxK > -jnp.inf, take(scored.items_BxM, place_BxK), -1), scores_BxK


@dataclasses.dataclass(frozen=True)
class Fusion:
  """Two models as one, as `user_search.Search` is one model.

  Attributes:
    generator: its search.
    dense_scores: of the dense model.
    width: W, candidates of each model, at most N.
  """

  generator: Search
  dense_scores: DenseScores
  width: int

  def items(self, beam: int, params: tuple[Any, Any, jax.Array], *arrays: Any) -> tuple[jax.Array, jax.Array]:
    """As `Search.items`; `params` are those of the generator and of the dense model, and the weight. Pure."""
    *models, weight = params
    scored = scored_candidates(self.generator, self.dense_scores, self.width, tuple(models), *arrays)
    return fuse(scored, weight, beam)


class FusedUserSearch:
  """The search of a generator, with the candidates and the scores of a dense model (`user_search.ListSearch`).

  Its `params` are (parameters of the generator, parameters of the dense model, weight).

  Attributes:
    ids, batches, beam: those of the generator's search.
  """

  def __init__(self, generator: UserSearch, dense_scores: DenseScores, width: int):
    """Compiles nothing yet.

    Args:
      generator: its search.
      dense_scores: of the dense model.
      width: candidates of each model, at least `generator.beam`.
    """
    self._generator = generator
    self.ids, self.batches, self.beam = generator.ids, generator.batches, generator.beam
    self._scored = self.batches.compiled(functools.partial(scored_candidates, generator.model, dense_scores, width), 2)
    self._fuse = jax.jit(functools.partial(fuse, k=self.beam), out_shardings=self.batches.sharding)

  def search(
    self, params: tuple[Any, Any, Any], items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> tuple[jax.Array, jax.Array]:
    """As `ListSearch.search`; scores are log p(generator) + weight * log p(dense model)."""
    *models, weight = params
    return self._fuse(self.scored(tuple(models), items_BxC, had_BxH, candidates), weight)

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    """As `ListSearch.candidates`."""
    return self._generator.candidates(allowed_N)

  def scored(
    self, params: tuple[Any, Any], items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> ScoredItems:
    """The candidates of each user with the scores of both models, on the devices.

    Args:
      params: of the generator, and of the dense model.
      items_BxC, had_BxH, candidates: as for `search`.
    """
    batch = self.batches.put((items_BxC, had_BxH))
    return self._scored(params, *batch, self.ids.codes_NxL, self.ids.trie, self.ids.paths, candidates)
