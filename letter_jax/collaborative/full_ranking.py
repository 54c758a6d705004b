"""Full-ranking evaluation of the models that score the whole catalogue, every user once, data parallel."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from letter_jax.data.splits import Examples
from letter_jax.evaluation import metrics
from letter_jax.training import sharding

EVALUATION_BATCH = 512


def full_ranking(scores: Callable[..., jax.Array], mesh: jax.sharding.Mesh) -> Callable[[Any, Examples, int], dict]:
  """A function (params, examples, width) -> {'recall@10': ...}; `width`: latest items of a history that are passed.

  Args:
    scores: (params, user_B int32, history_BxT int32 with T = width, target_B int32) -> float32 [B, N]; -inf takes an
      item out of the ranking. Histories are flush left, negative behind the last item.
  """

  @jax.jit
  def evaluate(params, user_B, history_BxT, target_B, weight_B):
    return metrics.full_ranking_metrics(scores(params, user_B, history_BxT, target_B), target_B, weight_B)

  def evaluate_all(params, examples: Examples, width: int) -> dict[str, float]:
    size = sharding.round_up(min(EVALUATION_BATCH, len(examples)), mesh.shape['data'])
    sums = []
    for first in range(0, len(examples), size):
      indices, weights = sharding.padded_rows(np.arange(first, min(first + size, len(examples))), size)
      chosen = examples.take(indices)
      rows = (chosen.user, chosen.histories(width), chosen.targets, weights)
      sums.append(evaluate(params, *sharding.put(rows, sharding.split(mesh))))
    return metrics.summarize(metrics.merge(sums))

  return evaluate_all
