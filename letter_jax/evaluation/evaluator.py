"""Evaluation of a generator: constrained beam search for every user, in batches of similar history lengths."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.data.splits import Examples
from letter_jax.decoding.beam_search import Beams, expand
from letter_jax.decoding.user_search import ListSearch, UserSearch
from letter_jax.evaluation import metrics
from letter_jax.system.progress import Progress


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Metrics, recommendations and target ranks of U users.

  Attributes:
    metrics: Recall@k and NDCG@k, by expected rank where items share a semantic ID.
    string_match: the same as in the reference, where any item with the target's semantic ID is a hit.
    items_UxK, scores_UxK: int32 and float32, the best items of each user and their log-likelihoods; -1 and -inf where
      there are fewer than K.
    ranks_3xU: int32, the rank of each user's target, as in `ranks.py`.
  """

  metrics: dict[str, float]
  string_match: dict[str, float]
  items_UxK: np.ndarray
  scores_UxK: np.ndarray
  ranks_3xU: np.ndarray


def batches_by_length(
  search: ListSearch, examples: Examples, label: str, widths: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """All examples in batches of B users of similar history lengths, shortest first.

  Args:
    search: whose batch size is used.
    examples: of U users.
    label: the title of the progress; '' shows none.
    widths: that histories are padded to, ascending; by default those of the search.

  Yields:
    indices_B into `examples`; weight_B float32, 0 on padded rows; and histories int32 [B, C].
  """
  size = search.batches.size
  widths = search.batches.widths(int(examples.lengths.max())) if widths is None else widths
  by_length = np.argsort(examples.lengths, kind='stable')
  with Progress(label, len(examples), 'user') as progress:
    for first in range(0, len(examples), size):
      chosen = by_length[first : first + size]
      width = widths[np.searchsorted(widths, min(examples.lengths[chosen[-1]], widths[-1]))]
      indices, weights = sharding.padded_rows(chosen, size)
      yield indices, weights, examples.take(indices).histories(width)
      progress.update(len(chosen))


class GeneratorEvaluator:
  """Beams and metrics of a generator, for any histories with their targets.

  Attributes:
    trie: the catalogue, on the devices.
    has_collisions: whether any two items share a semantic ID.
  """

  def __init__(self, search: UserSearch) -> None:
    """`search` is the generator's search over the catalogue that targets come from."""
    self._search, self.trie = search, search.ids.trie
    self.has_collisions = self.trie.num_leaves < self.trie.num_items
    whole = sharding.replicated(search.batches.mesh)
    group_sizes = np.bincount(search.ids.host.leaves_N, minlength=self.trie.num_leaves).astype(np.int32)
    self._group_sizes = sharding.put(group_sizes, whole)
    self._expand = jax.jit(functools.partial(expand, k=search.beam), out_shardings=whole)
    self._sums = jax.jit(self._metric_sums, out_shardings=whole)

  def beams(self, params: Any, examples: Examples, label: str = '') -> Iterator[tuple[np.ndarray, np.ndarray, Beams]]:
    """The beams of all examples, in batches of B users, shortest histories first.

    Args:
      params: the generator's parameters.
      label: the title of a progress bar; '' shows none.

    Yields:
      indices_B into `examples`; weight_B float32, 0 on padded rows; and the beams of the batch, on the devices.
    """
    for indices, weights, histories_BxC in batches_by_length(self._search, examples, label):
      yield indices, weights, self._search(params, histories_BxC)

  def shortened(self, examples: Examples) -> int:
    """The number of histories that lose their oldest items, because the model has no room for them."""
    longest = self._search.batches.longest
    return 0 if longest is None else int((examples.lengths > longest).sum())

  def trace_compiled(self, params: Any, width: int) -> tuple[int, jax.stages.Traced]:
    """See `UserSearch.trace_compiled`."""
    return self._search.trace_compiled(params, width)

  def validate(self, params: Any, examples: Examples) -> dict[str, float]:
    """Recall@k and NDCG@k over all examples, by expected rank where items share a semantic ID."""
    return metrics.summarize(
      metrics.merge(
        self._batch_sums(examples, indices, weights, beams)[0]['expected']
        for indices, weights, beams in self.beams(params, examples)
      )
    )

  def evaluate(self, params: Any, examples: Examples, label: str) -> Evaluation:
    """Metrics, recommendations and target ranks of all examples; `label` is the title of the progress bar."""
    sums: dict[str, list[metrics.Sums]] = {'expected': [], 'string_match': []}
    items_UxK = np.full((len(examples), self._search.beam), -1, np.int32)
    scores_UxK = np.full((len(examples), self._search.beam), -np.inf, np.float32)
    ranks_3xU = np.zeros((3, len(examples)), np.int32)

    def fetch(users: np.ndarray, lists: tuple[jax.Array, jax.Array], ranks_3xB: jax.Array) -> None:
      items_UxK[users], scores_UxK[users] = (np.asarray(part)[: len(users)] for part in lists)
      ranks_3xU[:, users] = np.asarray(ranks_3xB)[:, : len(users)]

    previous: tuple[np.ndarray, tuple[jax.Array, jax.Array], jax.Array] | None = None
    for indices, weights, beams in self.beams(params, examples, label):
      batch_sums, ranks_3xB = self._batch_sums(examples, indices, weights, beams)
      for kind, sums_of_kind in batch_sums.items():
        sums[kind].append(sums_of_kind)
      if previous is not None:
        fetch(*previous)  # while the device works on this batch
      previous = (indices[weights > 0], self._expand(beams, self.trie), ranks_3xB)
    if previous is not None:
      fetch(*previous)
    summaries = {kind: metrics.summarize(metrics.merge(batches)) for kind, batches in sums.items()}
    return Evaluation(summaries['expected'], summaries['string_match'], items_UxK, scores_UxK, ranks_3xU)

  def _batch_sums(
    self, examples: Examples, indices: np.ndarray, weights: np.ndarray, beams: Beams
  ) -> tuple[dict[str, metrics.Sums], jax.Array]:
    leaves_N = self._search.ids.host.leaves_N
    targets = self._search.batches.put((leaves_N[examples.targets[indices]], weights))
    return self._sums(beams.leaves_BxW, self._group_sizes, *targets)

  @staticmethod
  def _metric_sums(
    leaves_BxW: jax.Array, group_sizes: jax.Array, target_leaf_B: jax.Array, weight_B: jax.Array
  ) -> tuple[dict[str, metrics.Sums], jax.Array]:
    rank = metrics.rank_in_beams(leaves_BxW, group_sizes, target_leaf_B)
    matched = metrics.string_match(leaves_BxW, target_leaf_B)
    sums = {
      'expected': metrics.expected_metrics(*rank, weight_B),
      'string_match': metrics.expected_metrics(*matched, weight_B),
    }
    return sums, jnp.stack([part.astype(jnp.int32) for part in rank])
