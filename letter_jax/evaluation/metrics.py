"""Recall@k and NDCG@k as (sum, count) pairs, divided once, on the host.

There is one target per user, so Recall@k is the hit rate. A rank is given by three numbers per user: `ahead` items come
before the target's group, `group` items including the target are tied (one semantic ID, or one score), and `found` is
whether the target is in the list at all. The target's rank, counted from 0, is uniform over ahead .. ahead + group - 1,
and a metric is its expectation over that range.

Shapes: B users, W beams, N items.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.evaluation.ranks import KS

# name -> (sum over users, number of users), both float32 scalars on the device and float64 once merged.
Sums = dict[str, tuple[Any, Any]]
_Array = jax.Array | np.ndarray


def expected_metrics(
  ahead_B: _Array, group_B: _Array, found_B: _Array, weight_B: _Array, ks: tuple[int, ...] = KS
) -> Sums:
  """Expected Recall@k and NDCG@k of targets whose rank is uniform over a group of places. Pure.

  `ranks.gains` is the same formula for each user alone, on the host and in float64.

  Args:
    ahead_B: int32, items before the group.
    group_B: int32, items in the group, at least 1 where `found_B`.
    found_B: bool; a target that is not found counts as 0.
    weight_B: 1 for a user, 0 for a padded row, whose other values are ignored.
    ks: the cut-offs.

  Returns:
    {'recall@k': (sum, count), ..., 'ndcg@k': ...} for every k, float32 scalars.
  """
  place_K = jnp.arange(max(ks))
  in_group_BxK = (place_K >= ahead_B[:, None]) & (place_K < (ahead_B + group_B)[:, None]) & found_B[:, None]
  share_BxK = in_group_BxK / jnp.maximum(group_B, 1).astype(jnp.float32)[:, None]
  gain_K = 1 / jnp.log2(place_K + 2.0)
  weight_B = weight_B.astype(jnp.float32)
  count = weight_B.sum()
  recalls = {f'recall@{k}': ((share_BxK[:, :k].sum(axis=1) * weight_B).sum(), count) for k in ks}
  ndcgs = {f'ndcg@{k}': (((share_BxK * gain_K)[:, :k].sum(axis=1) * weight_B).sum(), count) for k in ks}
  return recalls | ndcgs


def rank_in_beams(
  leaves_BxW: jax.Array, group_size_of_leaf: jax.Array, target_leaf_B: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The target's rank in the list of the beams' items, where items that share a semantic ID are in random order.

  Args:
    leaves_BxW: int32, leaves of the beams, best first; -1 where missing.
    group_size_of_leaf: int32 [leaves], the number of items with that semantic ID.
    target_leaf_B: int32, leaf of each user's target.

  Returns:
    ahead_B int32, group_B int32 and found_B bool, for `expected_metrics`.
  """
  sizes_BxW = jnp.where(leaves_BxW >= 0, group_size_of_leaf[jnp.maximum(leaves_BxW, 0)], 0)
  position_B, found_B = _position(leaves_BxW, target_leaf_B)
  is_ahead_BxW = jnp.arange(leaves_BxW.shape[1]) < position_B[:, None]
  return jnp.where(is_ahead_BxW, sizes_BxW, 0).sum(axis=1), group_size_of_leaf[target_leaf_B], found_B


def string_match(leaves_BxW: jax.Array, target_leaf_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The target's rank when semantic IDs are compared as strings: any item with the target's ID is a hit.

  This is how LETTER evaluates, except that an ID counts once. It overestimates where items share IDs and equals
  `rank_in_beams` where none do.

  Args:
    leaves_BxW, target_leaf_B: as for `rank_in_beams`.

  Returns:
    ahead_B int32, group_B int32 (all 1) and found_B bool, for `expected_metrics`.
  """
  position_B, found_B = _position(leaves_BxW, target_leaf_B)
  return position_B, jnp.ones_like(position_B), found_B


def rank_in_scores(scores_BxN: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The target's rank when a model scores the whole catalogue.

  Args:
    scores_BxN: float32, higher is better; items with equal scores are tied. A score of -inf or NaN removes the item
      from the list.
    target_B: int32, item ids.

  Returns:
    ahead_B int32, group_B int32 and found_B bool, for `expected_metrics`.
  """
  target_score_Bx1 = jnp.take_along_axis(scores_BxN, target_B[:, None], axis=1)
  ahead_B = (scores_BxN > target_score_Bx1).sum(axis=1)
  group_B = (scores_BxN == target_score_Bx1).sum(axis=1)
  return ahead_B, group_B, target_score_Bx1[:, 0] > -jnp.inf


def merge(batches: Iterable[Sums]) -> Sums:
  """The sums of several batches, added up in float64 on the host; waits for the device."""
  totals: dict[str, np.ndarray] = {}
  for sums in jax.device_get(list(batches)):
    for name, pair in sums.items():
      totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
  return {name: (total[0], total[1]) for name, total in totals.items()}


def summarize(sums: Sums) -> dict[str, float]:
  """The means, such as {'recall@10': 0.0672, ...}, in the order of a results table; 0 where there are no users."""
  sums = jax.device_get(sums)
  # jit and device_get sort by name.
  ordered = sorted(sums, key=lambda name: (name.startswith('ndcg'), int(name.rpartition('@')[2])))
  return {name: float(sums[name][0]) / float(sums[name][1]) if sums[name][1] else 0.0 for name in ordered}


def _position(leaves_BxW: jax.Array, target_leaf_B: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The beam of each target, int32 (0 if there is none), and whether there is one, bool."""
  match_BxW = (leaves_BxW == target_leaf_B[:, None]) & (leaves_BxW >= 0)
  return jnp.argmax(match_BxW, axis=1).astype(jnp.int32), match_BxW.any(axis=1)
