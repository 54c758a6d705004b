"""Evaluation of recommendation lists as users get them: with the history ruled out, and of two models as one.

Shapes: U users, B users of a batch, H items of a history, M candidates, P partners, G choices of their weights, K items
of a list.
"""

import itertools
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.data import ragged
from letter_jax.data.splits import PAD_ITEM, Examples
from letter_jax.decoding.fusion import FusedUserSearch, ScoredItems, totals
from letter_jax.decoding.user_search import ListSearch
from letter_jax.evaluation import ranks
from letter_jax.evaluation.evaluator import batches_by_length
from letter_jax.evaluation.history import excluded_items
from letter_jax.ops.rounding import next_power_of_two

Weights = tuple[float, ...]  # of each partner

# The weights of each partner that validation chooses from.
WEIGHTS = (0.0, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


class ListEvaluator:
  """The lists of a search for any histories with their targets, with the history in the ranking or out of it.

  Both protocols share one program for each of two history widths, so that little time goes into compiling.
  """

  def __init__(self, search: ListSearch, longest_history: int):
    """Compiles nothing yet.

    Args:
      search: of a generator, or of two models.
      longest_history: the most items that any user has had.
    """
    self._search = search
    self._excluded = next_power_of_two(longest_history)
    self._candidates = search.candidates(np.ones(len(search.ids.host), bool))
    # Every process gets all rows of a batch.
    self._gather = jax.jit(lambda lists: lists, out_shardings=sharding.replicated(search.batches.mesh))

  def lists(
    self,
    params: Any,
    examples: Examples,
    history_out: Examples | None,
    label: str,
    widest: int = 0,
    tied_ids: bool = False,
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lists of all users, and the rank of each target in its list.

    Args:
      params: as the search takes them.
      examples: of U users.
      history_out: the examples with whole histories, whose items are ruled out; None leaves them in.
      label: the title of the progress bar.
      widest: use the programs for histories of up to so many items; 0 for the longest of the examples.
      tied_ids: whether items that share a semantic ID are tied, as they are for a generator alone.

    Returns:
      items int32 [U, K], scores float32 [U, K], ranks int32 [3, U].
    """
    items_UxK = np.full((len(examples), self._search.beam), -1, np.int32)
    scores_UxK = np.full((len(examples), self._search.beam), -np.inf, np.float32)

    def fetch(users: np.ndarray, lists: tuple[jax.Array, jax.Array]) -> None:
      items_UxK[users], scores_UxK[users] = (np.asarray(part)[: len(users)] for part in lists)

    previous: tuple[np.ndarray, tuple[jax.Array, jax.Array]] | None = None
    for users, _, histories_BxC, had_BxH in self._batches(examples, history_out, label, widest):
      started = self._gather(self._search.search(params, histories_BxC, had_BxH, self._candidates))
      if previous is not None:
        fetch(*previous)  # while the device works on this batch
      previous = (users, started)
    if previous is not None:
      fetch(*previous)
    if tied_ids:
      leaves_N = self._search.ids.host.leaves_N
      match_UxK = (items_UxK >= 0) & (leaves_N[items_UxK] == leaves_N[examples.targets][:, None])
      group_U, there_U = _mates(leaves_N, examples.targets, history_out)
    else:
      match_UxK = items_UxK == examples.targets[:, None]
      group_U, there_U = np.ones(len(examples), int), np.ones(len(examples), bool)
    ranks_3xU = np.stack([match_UxK.argmax(axis=1), group_U, match_UxK.any(axis=1) & there_U])
    return items_UxK, scores_UxK, ranks_3xU.astype(np.int32)

  def ranks_by_weight(
    self, params: tuple[Any, Any], weights_GxP: np.ndarray, examples: Examples, history_out: Examples | None, label: str
  ) -> np.ndarray:
    """int32 [G, 3, U], the ranks of the targets for each of G choices of the weights of P dense models.

    Args:
      params: of the models of a `FusedUserSearch`.
      weights_GxP: float32.
      examples, history_out, label: as for `lists`.
    """
    search = cast(FusedUserSearch, self._search)
    whole = sharding.replicated(search.batches.mesh)
    placed_GxP = sharding.put(weights_GxP, whole)
    rank = jax.jit(_ranks_by_weight, out_shardings=whole)
    ranks_Gx3xU = np.zeros((len(weights_GxP), 3, len(examples)), np.int32)
    for users, indices, histories_BxC, had_BxH in self._batches(examples, history_out, label):
      scored = search.scored(params, histories_BxC, had_BxH, self._candidates)
      ranks_Gx3xB = rank(scored, placed_GxP, search.batches.put(examples.targets[indices]))
      ranks_Gx3xU[:, :, users] = np.asarray(ranks_Gx3xB)[:, :, : len(users)]
    return ranks_Gx3xU

  def _batches(
    self, examples: Examples, history_out: Examples | None, label: str, widest: int = 0
  ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Users, indices_B with padded rows, histories int32 [B, C], and the excluded items int32 [B, H] of each batch."""
    widths = self._search.batches.few_widths(widest or int(examples.lengths.max()))
    nobody_BxH = np.full((self._search.batches.size, self._excluded), PAD_ITEM, np.int32)
    for indices, weights, histories_BxC in batches_by_length(self._search, examples, label, widths):
      had_BxH = nobody_BxH if history_out is None else excluded_items(history_out.take(indices), self._excluded)
      yield indices[weights > 0], indices, histories_BxC, had_BxH


def _mates(leaves_N: np.ndarray, target_U: np.ndarray, history_out: Examples | None) -> tuple[np.ndarray, np.ndarray]:
  """The number of items in the ranking that share each target's semantic ID, itself included, and whether it is there.

  Args:
    leaves_N: int, the leaf of each item.
    target_U: int32, the targets.
    history_out: the examples with whole histories, whose items are ruled out; None leaves them in.
  """
  group_U = np.bincount(leaves_N)[leaves_N[target_U]]
  if history_out is None:
    return group_U, np.ones(len(target_U), bool)
  lengths_U = history_out.lengths
  user_E = np.repeat(np.arange(len(target_U)), lengths_U)
  item_E = history_out.items[ragged.ranges(history_out.start, lengths_U)]
  user_P, item_P = np.unique(np.stack([user_E, item_E]), axis=1)
  mate_P = leaves_N[item_P] == leaves_N[target_U[user_P]]
  gone_U = np.bincount(user_P[mate_P], minlength=len(target_U))
  had_U = np.bincount(user_P[item_P == target_U[user_P]], minlength=len(target_U)) > 0
  return np.maximum(group_U - gone_U, 1), ~had_U


def choose_weights(
  evaluator: ListEvaluator, params: tuple[Any, Any], partners: int, examples: Examples, whole: Examples, label: str
) -> tuple[Weights, dict[Weights, tuple[dict[str, float], dict[str, float]]]]:
  """The weights of the dense models with the highest sum of NDCG@10 with the history in the ranking and out of it.

  Both protocols count because the same weights serve both, and because the history in the ranking alone rewards a
  generator that remembers: on Beauty, with SASRec, it would choose half the weight that is best on the test.

  Args:
    evaluator: of the models.
    params: of the models.
    partners: P, the number of dense models.
    examples: the validation.
    whole: the same with whole histories.
    label: the title of the progress bars.

  Returns:
    the best weights, one of WEIGHTS for each model, and for all such choices the metrics with the history in the
    ranking and out of it.
  """
  choices: list[Weights] = list(itertools.product(WEIGHTS, repeat=partners))
  weights_GxP = np.array(choices, np.float32)
  ranks_Gx3xU, without_Gx3xU = (
    evaluator.ranks_by_weight(params, weights_GxP, examples, history_out, f'{label}{protocol}')
    for history_out, protocol in ((None, ''), (whole, ', history out'))
  )
  found = {
    weights: (ranks.metrics_of(ranks_3xU), ranks.metrics_of(without_3xU))
    for weights, ranks_3xU, without_3xU in zip(choices, ranks_Gx3xU, without_Gx3xU)
  }
  return max(found, key=lambda weights: sum(metrics['ndcg@10'] for metrics in found[weights])), found


def _ranks_by_weight(scored: ScoredItems, weights_GxP: jax.Array, target_B: jax.Array) -> jax.Array:
  """int32 [G, 3, B], the ranks of the targets among the candidates for each choice of weights."""
  is_target_BxM = scored.items_BxM == target_B[:, None]
  total_GxBxM = totals(scored, weights_GxP)
  of_target_GxB = jnp.max(jnp.where(is_target_BxM, total_GxBxM, -jnp.inf), axis=-1)
  # The target is not ahead of itself, also where XLA computes its two totals with different roundings.
  ahead_GxB = ((total_GxBxM > of_target_GxB[..., None]) & ~is_target_BxM).sum(axis=-1)
  found_GxB = jnp.broadcast_to(is_target_BxM.any(axis=-1), ahead_GxB.shape)
  return jnp.stack([ahead_GxB, jnp.ones_like(ahead_GxB), found_GxB], axis=1).astype(jnp.int32)
