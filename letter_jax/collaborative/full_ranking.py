"""Full-ranking evaluation of models that score the whole catalogue: every user once, data parallel."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax import sharding
from letter_jax.data.splits import Examples
from letter_jax.evaluation import metrics

EVALUATION_BATCH = 512

# (params, examples, latest items of a history that the model sees) -> (metrics, ranks int32 [3, U])
Ranking = Callable[[Any, Examples, int], tuple[dict[str, float], np.ndarray]]


def full_ranking(scores: Callable[..., jax.Array], mesh: jax.sharding.Mesh) -> Ranking:
  """A function (params, examples, width) -> ({'recall@10': ...}, ranks int32 [3, U] as in `evaluation/ranks.py`).

  `width` is the number of latest items of a history that `scores` gets.

  Args:
    scores: (params, user_B int32, history_BxT int32 with T = width, target_B int32) -> float32 [B, N]; -inf takes an
      item out of the ranking. Histories are flush left, negative behind the last item.
  """

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def evaluate(
    params: Any, user_B: jax.Array, history_BxT: jax.Array, target_B: jax.Array, weight_B: jax.Array
  ) -> tuple[dict[str, Any], jax.Array]:
    rank = metrics.rank_in_scores(scores(params, user_B, history_BxT, target_B), target_B)
    return metrics.expected_metrics(*rank, weight_B), jnp.stack([part.astype(jnp.int32) for part in rank])

  def evaluate_all(params: Any, examples: Examples, width: int) -> tuple[dict[str, float], np.ndarray]:
    size = sharding.round_up(min(EVALUATION_BATCH, len(examples)), mesh.shape['data'])
    results = []
    for first in range(0, len(examples), size):
      indices, weights = sharding.padded_rows(np.arange(first, min(first + size, len(examples))), size)
      batch = examples.take(indices)
      rows = (batch.user, batch.histories(width), batch.targets, weights)
      results.append(evaluate(params, *sharding.put(rows, sharding.split_over_data(mesh))))
    sums, ranks = zip(*results)
    ranks_3xU = np.concatenate(jax.device_get(ranks), axis=1)[:, : len(examples)]
    return metrics.summarize(metrics.merge(sums)), ranks_3xU

  return evaluate_all
