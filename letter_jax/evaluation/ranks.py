"""The rank of every test user's target, by model: what confidence intervals, groups and comparisons are made of.

A file of ranks, `evaluation/ranks.npz`, holds an int32 array [3, U] for each model: items ahead of the target, items
that share its place, and whether the target is in the list (see `metrics.py`); users in the order of the data set.
"""

import pathlib
from collections.abc import Mapping

import numpy as np

from letter_jax.system import artifacts
from letter_jax.system.errors import InputError

FILE = 'ranks.npz'
GENERATOR = 'generator'


def write(path: pathlib.Path, ranks: Mapping[str, np.ndarray]) -> None:
  artifacts.write_npz(path, ranks)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Model -> int32 [3, U]; InputError where the file is not there or damaged."""
  expected = 'the ranks that the stage evaluate writes'
  found = artifacts.read_npz(path, expected)
  if any(each.ndim != 2 or len(each) != 3 for each in found.values()):
    raise InputError(f'{path} has arrays that are not [3, users]; expected {expected}')
  return found


def gains(ranks_3xU: np.ndarray, metric: str) -> np.ndarray:
  """float64 [U], what every user adds to a metric such as 'recall@10' or 'ndcg@10'; its mean is the metric."""
  name, _, at = metric.partition('@')
  ahead_U, group_U, found_U = ranks_3xU
  place_K = np.arange(int(at))
  value_K = np.ones(len(place_K)) if name == 'recall' else 1 / np.log2(place_K + 2)
  # The sum of the values of the places ahead .. ahead + group - 1, as far as they are among the first k.
  total_K = np.concatenate([np.zeros(1), np.cumsum(value_K)])
  first_U, last_U = (np.minimum(place_U, len(place_K)) for place_U in (ahead_U, ahead_U + group_U))
  return np.where(found_U > 0, (total_K[last_U] - total_K[first_U]) / np.maximum(group_U, 1), 0.0)
