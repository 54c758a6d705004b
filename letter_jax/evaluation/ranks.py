"""The rank of every test user's target, by model: the data behind confidence intervals, user groups and comparisons.

A file of ranks, `evaluation/ranks.npz`, holds an int32 array [3, U] for each model: the number of items ahead of the
target, the number of items tied with it (itself included), and whether it is in the list (see `metrics.py`). Users are
in the order of the data set. `history_out` names the ranks without the items of the user's history.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from letter_jax.evaluation.history import HISTORY_OUT
from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

KS = (1, 5, 10, 20)  # The cut-offs k of Recall@k and NDCG@k.
FILE = 'ranks.npz'
GENERATOR = 'generator'
FUSED = 'fused'
POPULARITY = 'popularity'
BOUGHT_TOGETHER = 'bought_together'
BUY_AGAIN = 'buy_again'
SIMPLE_RULES = (BOUGHT_TOGETHER, BUY_AGAIN, POPULARITY)  # baselines that nothing is trained for


def history_out(model: str) -> str:
  """The key of a model's ranks with the user's history out of the ranking (`evaluation/history.py`)."""
  return f'{model}_history_out'


def key(model: str, protocol: str) -> str:
  """The key of a model's ranks in a protocol (`evaluation/history.py`)."""
  return history_out(model) if protocol == HISTORY_OUT else model


def write(path: pathlib.Path, ranks: Mapping[str, np.ndarray]) -> None:
  """Writes the ranks int32 [3, U] of each model."""
  artifacts.write_npz(path, ranks)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The ranks of each model, int32 [3, U].

  Raises:
    InputError: the file does not exist or is damaged.
  """
  expected = 'the ranks that the stage evaluate writes'
  ranks = artifacts.read_npz(path, expected)
  if any(ranks_3xU.ndim != 2 or len(ranks_3xU) != 3 for ranks_3xU in ranks.values()):
    raise InputError(f'{path} has arrays that are not [3, users]; expected {expected}')
  return ranks


def metrics_of(ranks_3xU: np.ndarray) -> dict[str, float]:
  """Recall@k and NDCG@k of all users, from their ranks."""
  names = [f'{name}@{k}' for name in ('recall', 'ndcg') for k in KS]
  return {name: float(gains(ranks_3xU, name).mean()) for name in names}


def gains(ranks_3xU: np.ndarray, metric: str) -> np.ndarray:
  """The value of a metric for each user alone, float64 [U]; its mean is the metric.

  `metrics.expected_metrics` is the same formula for sums over a batch, on the device and in float32.

  Args:
    ranks_3xU: int32, as in a file of ranks.
    metric: 'recall@k' or 'ndcg@k' for any k.
  """
  name, _, at = metric.partition('@')
  ahead_U, group_U, found_U = ranks_3xU
  place_K = np.arange(int(at))
  value_K = np.ones(len(place_K)) if name == 'recall' else 1 / np.log2(place_K + 2)
  # The mean of the values of the places ahead .. ahead + group - 1, where places from k on have the value 0.
  total_K = np.concatenate([np.zeros(1), np.cumsum(value_K)])
  first_U, last_U = (np.minimum(place_U, len(place_K)) for place_U in (ahead_U, ahead_U + group_U))
  return np.where(found_U > 0, (total_K[last_U] - total_K[first_U]) / np.maximum(group_U, 1), 0.0)
