"""One ranking from several models: a generator of semantic IDs, and dense models that score every item at once.

The generator proposes the items of its beams, and the dense models the best of the others by the sum of their
log-likelihoods. For these candidates all log-likelihoods are exact: a dense model's is a softmax over the catalogue,
the generator's is computed by teacher forcing along the path of the item in the trie. The score of a candidate is
log p(generator) + sum of weight * log p(dense model). Models that err differently rank better together than each does
alone (LIGER, EnsRec).

Shapes: B users, N items, C items of a history, H excluded items, L levels, P dense models, W candidates of the
generator, V of the dense models, M = W + V.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.decoding.beam_search import Step
from letter_jax.decoding.candidates import Candidates, without_items
from letter_jax.decoding.compiled import Bound, compiled
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
    generator_BxM: float32, log-likelihoods of the items under the generator; -inf where there is none.
    dense_BxMxP: float32, the same under each of the dense models.
  """

  items_BxM: jax.Array
  generator_BxM: jax.Array
  dense_BxMxP: jax.Array


def score_items(
  step: Step, cache: Any, trie: ItemTrie, paths: Paths, codes_NxL: jax.Array, items_BxW: jax.Array, renormalise: bool
) -> jax.Array:
  """The generator's score of given items, by teacher forcing: float32 [B, W], equal to that of `beam_search`. Pure.

  Args:
    step, cache, renormalise: as for `beam_search`.
    trie, paths, codes_NxL: of the catalogue.
    items_BxW: int32, not negative.
  """
  # An item that is not there, of a catalogue with room for more, has the codes of any other.
  codes_BxWxL, nodes_BxWxL = jnp.maximum(codes_NxL[items_BxW], 0), paths.nodes_NxL[items_BxW]
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
  partners: Sequence[DenseScores],
  beam: int,
  width: int,
  params: tuple[Any, Sequence[Any]],
  items_BxC: jax.Array,
  had_BxH: jax.Array,
  codes_NxL: jax.Array,
  trie: ItemTrie,
  paths: Paths,
  candidates: Candidates,
) -> ScoredItems:
  """The best allowed items of the generator and of the dense models, with the scores of all. Pure.

  Args:
    search: of the generator.
    partners: the scores of the dense models.
    beam: W, candidates of the generator, at most N.
    width: V, candidates of the dense models, at most N.
    params: of the generator, and of each of the dense models.
    items_BxC, had_BxH, codes_NxL, trie, paths, candidates: as for `Search.items`.
  """
  generator_params, dense_params = params
  found_BxW, found_scores_BxW = search.items(
    beam, generator_params, items_BxC, had_BxH, codes_NxL, trie, paths, candidates
  )
  exists_N = codes_NxL[:, 0] >= 0
  dense = [
    jax.nn.log_softmax(jnp.where(exists_N, scores(of_partner, items_BxC).astype(jnp.float32), -jnp.inf), axis=-1)
    for scores, of_partner in zip(partners, dense_params, strict=True)
  ]
  out_BxH = jnp.concatenate([had_BxH, found_BxW], axis=1)
  together_BxN = jnp.where(candidates.allowed_N, functools.reduce(jnp.add, dense), -jnp.inf)
  best_BxV, item_BxV = top_k(without_items(together_BxN, out_BxH), width)
  step, cache = search.begin(generator_params, items_BxC, codes_NxL)
  generator_BxV = score_items(step, cache, trie, paths, codes_NxL, item_BxV, search.renormalise)

  items_BxM = jnp.concatenate([found_BxW, jnp.where(jnp.isfinite(best_BxV), item_BxV, -1)], axis=1)
  there_BxM = items_BxM >= 0
  generator_BxM = jnp.where(there_BxM, jnp.concatenate([found_scores_BxW, generator_BxV], axis=1), -jnp.inf)
  dense_BxMxP = jnp.stack([take(of, jnp.maximum(items_BxM, 0)) for of in dense], axis=-1)
  return ScoredItems(items_BxM, generator_BxM, jnp.where(there_BxM[..., None], dense_BxMxP, -jnp.inf))


def totals(scored: ScoredItems, weights_xP: jax.Array | np.ndarray) -> jax.Array:
  """log p(generator) + sum of weight * log p(dense model) of each candidate, -inf where there is none. Pure.

  Args:
    scored: the candidates.
    weights_xP: float32 [..., P], of the dense models, not negative.

  Returns:
    float32 [..., B, M].
  """
  there_BxM = scored.items_BxM >= 0
  dense_BxMxP = jnp.where(there_BxM[..., None], scored.dense_BxMxP, 0)  # a weight of 0 times -inf would be NaN
  # Summed in a fixed order, without a matrix product: the same with one set of weights as with many.
  weighted = sum(weights_xP[..., p, None, None] * dense_BxMxP[..., p] for p in range(dense_BxMxP.shape[-1]))
  return jnp.where(there_BxM, scored.generator_BxM + weighted, -jnp.inf)


def fuse(scored: ScoredItems, weights_P: jax.Array | np.ndarray, k: int) -> tuple[jax.Array, jax.Array]:
  """The k best candidates by log p(generator) + sum of weight * log p(dense model). Pure.

  Args:
    scored: the candidates.
    weights_P: float32, of the dense models, not negative.
    k: at most M.

  Returns:
    items int32 and scores float32 [B, k], best first; -1 and -inf where there are fewer.
  """
  scores_BxK, place_BxK = jax.lax.top_k(totals(scored, weights_P), k)
  return jnp.where(scores_BxK > -jnp.inf, take(scored.items_BxM, place_BxK), -1), scores_BxK


def _fuse(k: int, weights_P: jax.Array, scored: ScoredItems) -> tuple[jax.Array, jax.Array]:
  return fuse(scored, weights_P, k)


@dataclasses.dataclass(frozen=True)
class Fusion:
  """Several models as one, as `user_search.Search` is one model.

  Attributes:
    generator: its search.
    partners: the scores of the dense models.
    width: V, candidates of the dense models, at most N.
  """

  generator: Search
  partners: Sequence[DenseScores]
  width: int

  def items(self, beam: int, params: tuple[Any, Sequence[Any], jax.Array], *arrays: Any) -> tuple[jax.Array, jax.Array]:
    """As `Search.items`; `params` are those of the generator and of each dense model, and the weights [P]. Pure."""
    generator_params, dense_params, weights_P = params
    models = generator_params, dense_params
    scored = scored_candidates(self.generator, self.partners, beam, self.width, models, *arrays)
    return fuse(scored, weights_P, beam)


class FusedUserSearch:
  """The search of a generator, with the candidates and the scores of dense models (`user_search.ListSearch`).

  Its `params` are (parameters of the generator, parameters of each dense model, weights float32 [P]).

  Attributes:
    ids, batches, beam: those of the generator's search.
    num_partners: P.
  """

  def __init__(self, generator: UserSearch, partners: Sequence[DenseScores], width: int):
    """Compiles nothing yet.

    Args:
      generator: its search.
      partners: the scores of the dense models, at least one.
      width: candidates of the dense models, at most the number of items.
    """
    self._generator, self.num_partners = generator, len(partners)
    self.ids, self.batches, self.beam = generator.ids, generator.batches, generator.beam
    models = generator.model, tuple(partners)
    self._scored = self.batches.compiled(Bound(scored_candidates, (*models, self.beam, width)), 2)
    self._fuse = compiled(Bound(_fuse, (self.beam,)), self.batches.sharding)

  def search(
    self, params: tuple[Any, Any, Any], items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> tuple[jax.Array, jax.Array]:
    """As `ListSearch.search`; scores are log p(generator) + sum of weight * log p(dense model)."""
    generator_params, dense_params, weights_P = params
    return self._fuse(weights_P, self.scored((generator_params, dense_params), items_BxC, had_BxH, candidates))

  def candidates(self, allowed_N: np.ndarray) -> Candidates:
    """As `ListSearch.candidates`."""
    return self._generator.candidates(allowed_N)

  def scored(
    self, params: tuple[Any, Sequence[Any]], items_BxC: np.ndarray, had_BxH: np.ndarray, candidates: Candidates
  ) -> ScoredItems:
    """The candidates of each user with the scores of all models, on the devices.

    Args:
      params: of the generator, and of each dense model.
      items_BxC, had_BxH, candidates: as for `search`.
    """
    batch = self.batches.put((items_BxC, had_BxH))
    return self._scored(params, *batch, self.ids.codes_NxL, self.ids.trie, self.ids.paths, candidates)
