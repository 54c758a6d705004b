"""Full-ranking evaluation of models that score the whole catalogue: every user once, data parallel."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.data import splits
from letter_jax.data.dataset import Interactions
from letter_jax.data.splits import PAD_ITEM, Examples
from letter_jax.decoding.candidates import without_items
from letter_jax.decoding.fusion import DenseScores
from letter_jax.evaluation import metrics, ranks
from letter_jax.evaluation.history import excluded_items
from letter_jax.ops.rounding import next_power_of_two, round_up
from letter_jax.ops.top_k import top_k

EVALUATION_BATCH = 512
# A batch of a large catalogue has fewer users: this many scores, on each device, are 256 MB, of which
# a program has a few copies.
BATCH_SCORES = 2**26


class Ranking(Protocol):
  """A model that ranks the whole catalogue; one program serves validation and test."""

  def __call__(
    self, params: Any, examples: Examples, width: int, whole: Examples | None = None
  ) -> tuple[dict[str, float], np.ndarray]:
    """Metrics {'recall@10': ...}, and ranks int32 [3, U] as in `evaluation/ranks.py`.

    Args:
      params: of the model.
      examples: of U users.
      width: latest items of a history that the model sees.
      whole: the examples with whole histories, whose items are taken out of the ranking; None leaves them in.
    """


def full_ranking(scores: Callable[..., jax.Array], num_items: int, mesh: jax.sharding.Mesh) -> Ranking:
  """The ranking by a model's scores.

  Args:
    scores: (params, user_B int32, history_BxT int32 with T = width) -> float32 [B, N]. Histories are flush left,
      negative behind the last item.
    num_items: N.
    mesh: the devices that share the users.
  """

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def evaluate(
    params: Any, user_B: jax.Array, history_BxT: jax.Array, had_BxH: jax.Array, target_B: jax.Array, weight_B: jax.Array
  ) -> tuple[dict[str, Any], jax.Array]:
    scores_BxN = without_items(scores(params, user_B, history_BxT), had_BxH)
    rank = metrics.rank_in_scores(scores_BxN, target_B)
    return metrics.expected_metrics(*rank, weight_B), jnp.stack([part.astype(jnp.int32) for part in rank])

  def evaluate_all(
    params: Any, examples: Examples, width: int, whole: Examples | None = None
  ) -> tuple[dict[str, float], np.ndarray]:
    results = []
    for batch, had_BxH, weights in _batches(examples, whole, num_items, mesh):
      rows = (batch.user, batch.histories(width), had_BxH, batch.targets, weights)
      results.append(evaluate(params, *sharding.put(rows, sharding.split_over_data(mesh))))
    sums, ranks_of_batches = zip(*results)
    ranks_3xU = np.concatenate(jax.device_get(ranks_of_batches), axis=1)[:, : len(examples)]
    return metrics.summarize(metrics.merge(sums)), ranks_3xU

  return evaluate_all


def full_lists(
  scores: DenseScores,
  num_items: int,
  params: Any,
  examples: Examples,
  history_out: Examples | None,
  width: int,
  k: int,
  mesh: jax.sharding.Mesh,
) -> np.ndarray:
  """The k best items of each of U users, int32 [U, k], best first; -1 where there are fewer.

  Args:
    scores, params: of the model, which scores `num_items` items.
    num_items: N.
    examples: of the users.
    history_out: the examples with whole histories, whose items are ruled out; None leaves them in.
    width: latest items of a history that the model sees.
    k: at most the number of items.
    mesh: the devices.
  """

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def best(params: Any, history_BxT: jax.Array, had_BxH: jax.Array) -> jax.Array:
    scores_BxK, item_BxK = top_k(without_items(scores(params, history_BxT), had_BxH), k)
    return jnp.where(jnp.isfinite(scores_BxK), item_BxK, PAD_ITEM)

  lists = []
  for batch, had_BxH, _ in _batches(examples, history_out, num_items, mesh):
    rows = (batch.histories(width), had_BxH)
    lists.append(best(params, *(sharding.put(row, sharding.split_over_data(mesh)) for row in rows)))
  return np.concatenate(jax.device_get(lists))[: len(examples)]


def _batches(
  examples: Examples, history_out: Examples | None, num_items: int, mesh: jax.sharding.Mesh
) -> Iterator[tuple[Examples, np.ndarray, np.ndarray]]:
  """Batches of one size: examples, the items to exclude int32 [B, H], and weights float32 [B], 0 in rows of padding."""
  devices = mesh.shape['data']
  users = min(EVALUATION_BATCH, max(devices * BATCH_SCORES // num_items, 1), len(examples))
  size = round_up(users, devices)
  excluded = 0 if history_out is None else next_power_of_two(int(history_out.lengths.max(initial=1)))
  nobody_BxH = np.full((size, excluded), PAD_ITEM, np.int32)
  for first in range(0, len(examples), size):
    indices, weights = sharding.padded_rows(np.arange(first, min(first + size, len(examples))), size)
    had_BxH = nobody_BxH if history_out is None else excluded_items(history_out.take(indices), excluded)
    yield examples.take(indices), had_BxH, weights


def evaluate_both_ways(
  rank: Ranking, params: Any, data: Interactions, width: int, name: str, users: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Validation and test, with the history in the ranking and out of it.

  Args:
    rank, params: the model.
    data: of all users.
    width: latest items of a history that the model sees.
    name: of the model, for the keys of its ranks.
    users: how many users, as for `splits.test_examples`.

  Returns:
    {'validation': metrics, 'test': metrics, 'history_out': {the same}}, and the ranks of the test by key (`ranks.py`).
  """
  found: dict[str, dict[str, dict[str, float]]] = {'in': {}, 'out': {}}
  test_ranks = {}
  for split, make_examples in (('validation', splits.validation_examples), ('test', splits.test_examples)):
    examples = make_examples(data, width, users)
    found['in'][split], test_ranks[name] = rank(params, examples, width)
    whole = examples.whole_histories(data)
    found['out'][split], test_ranks[ranks.history_out(name)] = rank(params, examples, width, whole)
  return {**found['in'], 'history_out': found['out']}, test_ranks
