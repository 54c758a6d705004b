"""Evaluation of a generator: every user once, by constrained beam search, in batches of like history lengths."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from tqdm import tqdm

from letter_jax.data.splits import Examples
from letter_jax.decoding import item_trie
from letter_jax.decoding.beam_search import Beams, expand
from letter_jax.evaluation import metrics
from letter_jax.training import sharding

# Histories are padded to the next of these widths (in items), one compiled program each. Of eight users' test histories
# in 5-core data, three have four items and seven at most ten.
BUCKETS = (4, 5, 6, 8, 11, 15, 20)

# (params, items_BxC, codes_NxL, trie, beam) -> Beams, pure; items are padded with negative numbers.
Search = Callable[..., Beams]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Attributes:
    metrics: with the expected rank where items share a semantic ID.
    string_match: the reference's way, where every item that shares the target's ID is a hit.
    items_UxK, scores_UxK: best items of each user and their log-likelihoods, -1 and -inf where there are fewer than K.
  """

  metrics: dict[str, float]
  string_match: dict[str, float]
  items_UxK: np.ndarray
  scores_UxK: np.ndarray


class GeneratorEvaluator:
  """Beams and metrics of a generator for any users' histories."""

  def __init__(self, search: Search, semantic_ids: np.ndarray, beam: int, batch_size: int, mesh: jax.sharding.Mesh,
               longest: int | None = None, in_pieces: bool = False):
    """`search` is the model's part, compiled once per width; `semantic_ids` is int32 [items, L].

    Args:
      longest: items that the model has room for; of longer histories the latest are taken.
      in_pieces: parameters stay in pieces, for those that no device has room for, and XLA adds the communication; else
        every device has all of them and its own users.
    """
    self._longest = longest
    self._batch = sharding.round_up(batch_size, mesh.size)
    trie = item_trie.build(semantic_ids)
    self._leaf_of_item = item_trie.leaves_of_items(trie)
    group_sizes = np.bincount(self._leaf_of_item, minlength=trie.num_leaves).astype(np.int32)
    self._codes, self.trie, self._group_sizes = sharding.put(
      (semantic_ids, trie, group_sizes), sharding.replicated(mesh))
    self.has_collisions = trie.num_leaves < len(semantic_ids)
    self._beam = beam
    self._expand = jax.jit(functools.partial(expand, k=beam), out_shardings=sharding.replicated(mesh))
    whole, self._users = PartitionSpec(), sharding.split(mesh) if in_pieces else sharding.everywhere(mesh)
    local = functools.partial(search, beam=beam)
    if in_pieces:
      self._search = jax.jit(local, out_shardings=self._users)
    else:
      if mesh.devices.flat[0].platform == 'cpu' and self._batch // mesh.size % 2 == 0:
        local = functools.partial(_in_halves, local)
      # Users are independent. Left to jit, the top-k of the search would gather all of them on every device.
      self._search = jax.jit(jax.shard_map(
        local, mesh=mesh, in_specs=(whole, self._users.spec, whole, whole), out_specs=self._users.spec,
        check_vma=False))
    self._sums = jax.jit(self._metric_sums)

  def beams(self, params, examples: Examples, label: str = '') -> Iterator[tuple[np.ndarray, np.ndarray, Beams]]:
    """(indices into examples, weights that are 0 on padded rows, beams on the device), shortest histories first."""
    longest = int(examples.lengths.max())
    if self._longest is not None:
      longest = min(longest, self._longest)
    widths = np.array(sorted({*(width for width in BUCKETS if width < longest), longest}))
    bar = tqdm(total=len(examples), desc=label, unit='user', disable=None if label else True, dynamic_ncols=True)
    by_length = np.argsort(examples.lengths, kind='stable')
    for first in range(0, len(examples), self._batch):
      chosen = by_length[first:first + self._batch]
      width = widths[np.searchsorted(widths, min(examples.lengths[chosen[-1]], longest))]
      indices, weights = sharding.padded_rows(chosen, self._batch)
      histories = sharding.put(examples.take(indices).histories(width), self._users)
      yield indices, weights, self._search(params, histories, self._codes, self.trie)
      bar.update(len(chosen))
    bar.close()

  def shortened(self, examples: Examples) -> int:
    """Histories that lose their oldest items, for want of room."""
    return 0 if self._longest is None else int((examples.lengths > self._longest).sum())

  def trace(self, params, width: int) -> tuple[int, jax.stages.Traced]:
    """Users of a batch and the search for histories of `width` items, to be compiled."""
    histories = sharding.put(np.zeros((self._batch, width), np.int32), self._users)
    return self._batch, self._search.trace(params, histories, self._codes, self.trie)

  def validate(self, params, examples: Examples) -> dict[str, float]:
    """Recall@k and NDCG@k over all examples, with the expected rank where items share a semantic ID."""
    return metrics.summarize(metrics.merge(
      self._batch_sums(examples, indices, weights, beams)['expected']
      for indices, weights, beams in self.beams(params, examples)))

  def evaluate(self, params, examples: Examples, label: str) -> 'Evaluation':
    """Metrics and lists of all examples."""
    sums = {'expected': [], 'string_match': []}
    items_UxK = np.full((len(examples), self._beam), -1, np.int32)
    scores_UxK = np.full((len(examples), self._beam), -np.inf, np.float32)

    def fetch(batch):
      if batch is not None:
        users, lists = batch
        items_UxK[users], scores_UxK[users] = (np.asarray(part)[:len(users)] for part in lists)

    before = None
    for indices, weights, beams in self.beams(params, examples, label):
      for kind, batch in self._batch_sums(examples, indices, weights, beams).items():
        sums[kind].append(batch)
      fetch(before)  # while the device works on this batch
      before = (indices[weights > 0], self._expand(beams, self.trie))
    fetch(before)
    summaries = {kind: metrics.summarize(metrics.merge(batches)) for kind, batches in sums.items()}
    return Evaluation(summaries['expected'], summaries['string_match'], items_UxK, scores_UxK)

  def _batch_sums(self, examples: Examples, indices, weights, beams: Beams) -> dict[str, metrics.Sums]:
    targets = sharding.put((self._leaf_of_item[examples.targets[indices]], weights), self._users)
    return self._sums(beams.leaves_BxW, self._group_sizes, *targets)

  @staticmethod
  def _metric_sums(leaves_BxW, group_sizes, target_leaf_B, weight_B):
    rank = metrics.rank_in_beams(leaves_BxW, group_sizes, target_leaf_B)
    matched = metrics.string_match(leaves_BxW, target_leaf_B)
    return {'expected': metrics.expected_metrics(*rank, weight_B),
            'string_match': metrics.expected_metrics(*matched, weight_B)}


def _in_halves(search: Search, params, items_BxC, codes_NxL, trie) -> Beams:
  """The same search for both halves of the users, of which none waits for the other: XLA's CPU runs what is ready, so
  that one half's matrix products fill the pauses of the other (measured: 5 to 10% more users a second)."""
  halves = [search(params, half, codes_NxL, trie) for half in jnp.split(items_BxC, 2)]
  return jax.tree.map(lambda *parts: jnp.concatenate(parts), *halves)
