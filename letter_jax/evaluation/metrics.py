"""Recall@k (the hit rate, as there is one target) and NDCG@k, as (sum, count) pairs that are divided once, on the host.

A rank comes as three numbers per user: `ahead` items are before the target's group, `group` items including the target
share its place (one semantic ID, or one score), and `found` says whether the target is in the list at all. The target's
rank is then uniform over ahead .. ahead + group - 1, and a metric is its expectation.

Shapes: B users, W beams, N items.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

KS = (1, 5, 10, 20)

# name -> (sum over users, number of users), both float32 scalars on the device and float64 once merged.
Sums = dict[str, tuple[jax.Array, jax.Array]]


def expected_metrics(
  ahead_B: jax.Array, group_B: jax.Array, found_B: jax.Array, weight_B: jax.Array, ks: tuple[int, ...] = KS
) -> Sums:
  """Expected Recall@k and NDCG@k of targets whose rank is uniform over a group of places.

  Args:
    ahead_B: int32, items before the group.
    group_B: int32, items in the group, at least 1 where found.
    found_B: bool; a target that is not found counts as 0.
    weight_B: 1 for a user, 0 for a padded row, whose other values do not matter.

  Returns:
    {'recall@k': (sum, count), ..., 'ndcg@k': ...} for every k.
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
  """Where the target is when the beams' items are listed, those that share a semantic ID in random order.

  Args:
    leaves_BxW: int32, best first, -1 where missing.
    group_size_of_leaf: int32 [leaves], items with that semantic ID.
    target_leaf_B: int32.

  Returns:
    ahead_B int32, group_B int32 and found_B bool, for `expected_metrics`.
  """
  sizes_BxW = jnp.where(leaves_BxW >= 0, group_size_of_leaf[jnp.maximum(leaves_BxW, 0)], 0)
  position_B, found_B = _position(leaves_BxW, target_leaf_B)
  is_ahead_BxW = jnp.arange(leaves_BxW.shape[1]) < position_B[:, None]
  return jnp.where(is_ahead_BxW, sizes_BxW, 0).sum(axis=1), group_size_of_leaf[target_leaf_B], found_B


def string_match(leaves_BxW: jax.Array, target_leaf_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """As `rank_in_beams`, but semantic IDs are compared as strings: any item with the target's ID is a hit.

  LETTER's own evaluation (except that an ID counts once); too kind where items share IDs, the same where none do.
  """
  position_B, found_B = _position(leaves_BxW, target_leaf_B)
  return position_B, jnp.ones_like(position_B), found_B


def rank_in_scores(scores_BxN: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Where the target is when a model scores the whole catalogue.

  Args:
    scores_BxN: float32, higher is better; items with equal scores share a place. A score of -inf or NaN takes an item
      out of the list.
    target_B: int32, item ids.

  Returns:
    ahead_B int32, group_B int32 and found_B bool, for `expected_metrics`.
  """
  target_score_Bx1 = jnp.take_along_axis(scores_BxN, target_B[:, None], axis=1)
  ahead_B = (scores_BxN > target_score_Bx1).sum(axis=1)
  group_B = (scores_BxN == target_score_Bx1).sum(axis=1)
  return ahead_B, group_B, target_score_Bx1[:, 0] > -jnp.inf


def merge(batches: Iterable[Sums]) -> Sums:
  """The sums of several batches, added in float64 on the host; waits for the device."""
  totals = {}
  for sums in jax.device_get(list(batches)):
    for name, pair in sums.items():
      totals[name] = totals.get(name, 0.0) + np.asarray(pair, np.float64)
  return {name: (total[0], total[1]) for name, total in totals.items()}


def summarize(sums: Sums) -> dict[str, float]:
  """{'recall@10': 0.0672, ...}; 0 where there are no users."""
  sums = jax.device_get(sums)
  # jit and device_get sort the names; here they get the order of a results table again.
  ordered = sorted(sums, key=lambda name: (name.startswith('ndcg'), int(name.rpartition('@')[2])))
  return {name: float(sums[name][0]) / float(sums[name][1]) if sums[name][1] else 0.0 for name in ordered}


def _position(leaves_BxW: jax.Array, target_leaf_B: jax.Array) -> tuple[jax.Array, jax.Array]:
  match_BxW = (leaves_BxW == target_leaf_B[:, None]) & (leaves_BxW >= 0)
  return jnp.argmax(match_BxW, axis=1).astype(jnp.int32), match_BxW.any(axis=1)
