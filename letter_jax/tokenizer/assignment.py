"""Semantic IDs of a whole catalogue from its latents, and two ways to treat items that share one.

'reference': LETTER's RQ-VAE/generate_indices.py. Items that share an ID choose their last code again, by Sinkhorn
among themselves, in up to 20 rounds; what still collides is kept.

'resolve': no two items have the same ID, whatever the catalogue. An ID is a leaf of a tree in which every node has K
children, and a node l levels above the leaves has room for K**l items. Level by level from the root, items choose their
nearest code; where a child gets more items than it has leaves, those that lose most by moving stay and the others take
the nearest sibling with room. Every node below then has enough room, so at the leaves every item has its own ID. Only
where a whole prefix is full does an item leave it: otherwise the choice is the nearest code.

Shapes: N items, L levels, K codes per level, d latent width, U items that must move.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.configuration import RQVAEConfig
from letter_jax.data import ragged
from letter_jax.ops.argmin import argmin
from letter_jax.ops.rounding import next_power_of_two
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted
from letter_jax.tokenizer import checks
from letter_jax.tokenizer.diagnostics import id_groups
from letter_jax.tokenizer.quantizer import quantize, squared_distances
from letter_jax.tokenizer.sinkhorn import center_distances, sinkhorn_codes

_REFERENCE_ROUNDS = 20
_BATCH_ROWS = 8192
_PLAN_ENTRIES = 2**23  # in all Sinkhorn plans that are computed at once


def assign_semantic_ids(
  latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray, config: RQVAEConfig, collisions: str
) -> tuple[np.ndarray, dict[str, Any]]:
  """Codes of all items, with shared IDs treated as `collisions` says.

  Args:
    latent_Nxd: float32, encoder outputs of the whole catalogue.
    codebooks_LxKxd: float32.
    config: the Sinkhorn settings of 'reference'.
    collisions: 'resolve' or 'reference' (see above).

  Returns:
    codes_NxL: int32.
    report: as of `report_of`.

  Raises:
    InputError: `collisions` has a different value; an array is not what it should be (`checks.latents_and_codebooks`);
      there are more items than IDs and `collisions` is 'resolve'.
  """
  checks.collision_rule(collisions)
  latent_Nxd, codebooks_LxKxd = checks.latents_and_codebooks(latent_Nxd, codebooks_LxKxd)
  levels, codes, _ = codebooks_LxKxd.shape
  items = len(latent_Nxd)
  nearest_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd)
  if collisions == 'reference':
    assigned_NxL = _reference(latent_Nxd, codebooks_LxKxd, nearest_NxL, config)
  else:
    if items > codes**levels:
      raise InputError(
        f'{counted(items, "item")} cannot all have different semantic IDs: {counted(levels, "level")} of {codes} codes '
        f'give {codes**levels}; expected a larger codebook_size or more levels (config.tokenizer.model)'
      )
    assigned_NxL = _resolve(latent_Nxd, codebooks_LxKxd)
  return assigned_NxL, report_of(latent_Nxd, codebooks_LxKxd, assigned_NxL, nearest_NxL)


def report_of(
  latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray, assigned_NxL: np.ndarray, nearest_NxL: np.ndarray | None = None
) -> dict[str, Any]:
  """How the IDs of items differ from their nearest codes.

  Args:
    latent_Nxd: float32, encoder outputs of the items.
    codebooks_LxKxd: float32.
    assigned_NxL: int32, their IDs.
    nearest_NxL: int32, `nearest_codes` of the items, where they are known.

  Returns:
    `items`; `collided`, items that shared their nearest ID with others; `moved`, items whose ID is not the nearest;
    `moved_at_level` [L], moved items by the first level at which the codes differ; `error_increase_mean` and
    `error_increase_max`, over the moved items, of the squared quantisation error |latent - z|^2 (below 0 where a
    different ID happens to be nearer than the greedy one); `colliding_after`, items that still share their ID.
  """
  nearest_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd) if nearest_NxL is None else nearest_NxL
  levels = codebooks_LxKxd.shape[0]
  differs_NxL = assigned_NxL != nearest_NxL
  moved_U = np.flatnonzero(differs_NxL.any(axis=1))
  increase_U = _squared_errors(latent_Nxd[moved_U], codebooks_LxKxd, assigned_NxL[moved_U]) - _squared_errors(
    latent_Nxd[moved_U], codebooks_LxKxd, nearest_NxL[moved_U]
  )
  return {
    'items': len(latent_Nxd),
    'collided': _colliding(nearest_NxL).size,
    'moved': moved_U.size,
    'moved_at_level': np.bincount(np.argmax(differs_NxL[moved_U], axis=1), minlength=levels).tolist(),
    'error_increase_mean': float(increase_U.mean()) if moved_U.size else 0.0,
    'error_increase_max': float(increase_U.max()) if moved_U.size else 0.0,
    'colliding_after': _colliding(assigned_NxL).size,
  }


def assign_later_items(latent_Mxd: np.ndarray, codebooks_LxKxd: np.ndarray, taken_NxL: np.ndarray) -> np.ndarray:
  """Semantic IDs, int32 [M, L], of items added to a catalogue: as 'resolve' gives them, and none of `taken_NxL`.

  Args:
    latent_Mxd: float32, encoder outputs of the new items.
    codebooks_LxKxd: float32.
    taken_NxL: int32, IDs that stay as they are.

  Raises:
    InputError: an array is not what it should be (`checks`), or not enough IDs are left.
  """
  latent_Mxd, codebooks_LxKxd = checks.latents_and_codebooks(latent_Mxd, codebooks_LxKxd)
  levels, codes, _ = codebooks_LxKxd.shape
  taken_NxL = np.unique(checks.semantic_ids(taken_NxL, levels, codes), axis=0)
  if len(taken_NxL) + len(latent_Mxd) > codes**levels:
    raise InputError(
      f'{len(latent_Mxd)} new items cannot all have different semantic IDs: {len(taken_NxL)} of {codes**levels} are '
      'taken; expected fewer new items, or a tokenizer with more codes'
    )
  return _resolve(latent_Mxd, codebooks_LxKxd, taken_NxL)


def nearest_codes(latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray) -> np.ndarray:
  """Nearest codes of all items at every level, int32 [N, L], computed batch by batch."""
  on_device_LxKxd = jnp.asarray(codebooks_LxKxd)
  return _in_batches(lambda batch_Bxd: _nearest_of_batch(batch_Bxd, on_device_LxKxd), latent_Nxd)


def _resolve(latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray, taken_TxL: np.ndarray | None = None) -> np.ndarray:
  """Different IDs for all items, int32 [N, L], and none of those that are taken."""
  levels, codes, _ = codebooks_LxKxd.shape
  items = len(latent_Nxd)
  residual_Nxd = latent_Nxd
  node_N = np.zeros(items, np.int64)  # number of the item's prefix among all prefixes in use
  taken_TxL = np.zeros((0, levels), np.int32) if taken_TxL is None else taken_TxL
  taken_node_T = np.zeros(len(taken_TxL), np.int64)  # of the taken IDs that begin with such a prefix
  moved_N = np.zeros(items, bool)
  assigned_NxL = np.empty((items, levels), np.int32)
  for level, codebook_Kxd in enumerate(codebooks_LxKxd):
    children, leaves = (node_N.max() + 1) * codes, codes ** (levels - level - 1)
    taken_child_T = taken_node_T * codes + taken_TxL[:, level]
    room_C = np.broadcast_to(np.int64(min(leaves, items)), children)  # without taken IDs, one number
    if len(taken_TxL):
      taken_C = np.bincount(taken_child_T, minlength=children)
      room_C = np.minimum(min(leaves, items + len(taken_TxL)) - taken_C, items)
    code_N, moved_here_N = _spread(residual_Nxd, jnp.asarray(codebook_Kxd), node_N, room_C, moved_N)
    moved_N |= moved_here_N
    assigned_NxL[:, level] = code_N
    # As in `quantizer.quantize`, rounding included, so that items that need not move get the quantizer's codes.
    residual_Nxd = residual_Nxd - (residual_Nxd + (codebook_Kxd[code_N] - residual_Nxd))
    in_use, node_N = np.unique(node_N * codes + code_N, return_inverse=True)
    place_T = np.minimum(np.searchsorted(in_use, taken_child_T), len(in_use) - 1)
    stays_T = in_use[place_T] == taken_child_T
    taken_TxL, taken_node_T = taken_TxL[stays_T], place_T[stays_T]
  return assigned_NxL


def _spread(
  residual_Nxd: np.ndarray, codebook_Kxd: jax.Array, node_N: np.ndarray, room_C: np.ndarray, moved_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """A code near the residual of every item, at most room_C[node * K + code] items on one; and which items moved."""
  codes = codebook_Kxd.shape[0]
  best_Nx2 = _in_batches(lambda batch_Bxd: _nearest_and_margin(batch_Bxd, codebook_Kxd), residual_Nxd)
  code_N, margin_N = best_Nx2[:, 0].astype(np.int64), best_Nx2[:, 1]
  child_N = node_N * codes + code_N
  # Items with the most to lose stay, among equals the first; those that left a full prefix come after all others.
  moves_N = _rank(child_N, np.where(moved_N, 1 / (1 + margin_N), -margin_N)) >= room_C[child_N]
  movers_U = np.flatnonzero(moves_N)
  if not movers_U.size:
    return code_N, moves_N
  left_C = room_C - np.minimum(np.bincount(child_N, minlength=len(room_C)), room_C)
  distances_UxK = _in_batches(lambda batch_Bxd: _distances(batch_Bxd, codebook_Kxd), residual_Nxd[movers_U])
  choices_UxK = np.argsort(distances_UxK, axis=1, kind='stable').astype(np.int32)

  # Every item goes through its own list of codes, nearest first. A code with room takes the items that are nearest to
  # it; the others ask for the next code on their lists. Codes only get fuller, so none has to be asked twice, and after
  # K rounds every item has a code.
  waiting_W = np.arange(len(movers_U))
  first_child_U = node_N[movers_U] * codes
  for choice in range(codes):
    asked_W = choices_UxK[waiting_W, choice]
    child_W = first_child_U[waiting_W] + asked_W
    distance_W = distances_UxK[waiting_W, asked_W]
    accepted_W = _rank(child_W, distance_W) < left_C[child_W]
    code_N[movers_U[waiting_W[accepted_W]]] = asked_W[accepted_W]
    left_C -= np.bincount(child_W[accepted_W], minlength=len(left_C))
    waiting_W = waiting_W[~accepted_W]
    if not waiting_W.size:
      break
  return code_N, moves_N


def _reference(
  latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray, nearest_NxL: np.ndarray, config: RQVAEConfig
) -> np.ndarray:
  """Rounds of Sinkhorn on the last level, group by group of items that share an ID."""
  codes_NxL = nearest_NxL.copy()
  prefix_Nxd = np.take_along_axis(codebooks_LxKxd[:-1], nearest_NxL.T[:-1, :, None], axis=1).sum(axis=0)
  residual_Nxd = (latent_Nxd - prefix_Nxd).astype(np.float32)
  before_N: np.ndarray | None = None
  size_before_G = np.zeros(0, np.int64)
  for _ in range(_REFERENCE_ROUNDS):
    group_N = id_groups(codes_NxL)
    size_G = np.bincount(group_N)
    due_G = size_G > 1
    if before_N is not None:
      # A group that is unchanged since the last round would get the same codes again, for ever.
      lowest_G = np.full(len(size_G), len(group_N))
      np.minimum.at(lowest_G, group_N, before_N)
      mixed_G = np.bincount(group_N[before_N != lowest_G[group_N]], minlength=len(size_G)) > 0
      due_G &= mixed_G | (size_before_G[lowest_G] != size_G)
    if not due_G.any():
      break
    codes_NxL[:, -1] = _choose_again(residual_Nxd, codebooks_LxKxd[-1], codes_NxL[:, -1], group_N, due_G, config)
    before_N, size_before_G = group_N, size_G
  return codes_NxL


def _choose_again(
  residual_Nxd: np.ndarray,
  codebook_Kxd: np.ndarray,
  code_N: np.ndarray,
  group_N: np.ndarray,
  due_G: np.ndarray,
  config: RQVAEConfig,
) -> np.ndarray:
  """Last codes of all items after one round; groups of similar size are padded to one width and computed together."""
  code_N = code_N.copy()
  size_G = np.bincount(group_N)
  order_N = np.argsort(group_N, kind='stable')
  first_G = ragged.starts(size_G)
  width_G = np.where(due_G, 2 ** np.ceil(np.log2(size_G)).astype(np.int64), 0)
  for width in np.unique(width_G[due_G]).tolist():
    # Every batch of a width has the same number of groups, so that each width is compiled once.
    groups = max(1, min(_PLAN_ENTRIES // (width * len(codebook_Kxd)), 1024))
    wide_W = np.flatnonzero(width_G == width)
    for start in range(0, len(wide_W), groups):
      batch_W = wide_W[start : start + groups]
      place_S = np.arange(width)
      member_WxS = place_S < size_G[batch_W, None]
      item_WxS = order_N[np.minimum(first_G[batch_W, None] + place_S, len(order_N) - 1)]
      padding = ((0, groups - len(batch_W)), (0, 0))
      again_WxS = _sinkhorn_codes(
        residual_Nxd[np.pad(item_WxS, padding)],
        codebook_Kxd,
        np.pad(member_WxS, padding).astype(np.float32),
        config.sinkhorn_epsilon,
        config.sinkhorn_iterations,
      )
      code_N[item_WxS[member_WxS]] = np.asarray(again_WxS)[: len(batch_W)][member_WxS]
  return code_N


def _squared_errors(latent_Nxd: np.ndarray, codebooks_LxKxd: np.ndarray, codes_NxL: np.ndarray) -> np.ndarray:
  """|latent - z|^2 of every item, z the sum of its codes' vectors: float32 [N]."""
  z_Nxd = np.zeros_like(latent_Nxd)
  for level, codebook_Kxd in enumerate(codebooks_LxKxd):
    z_Nxd += codebook_Kxd[codes_NxL[:, level]]
  return np.sum((latent_Nxd - z_Nxd) ** 2, axis=1)


def _colliding(codes_NxL: np.ndarray) -> np.ndarray:
  """Indices of the items that share their ID with other items."""
  group_N = id_groups(codes_NxL)
  return np.flatnonzero(np.bincount(group_N)[group_N] > 1)


def _rank(group_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
  """Position of every item by ascending key within its group, equal keys in the order of the items."""
  order_N = np.lexsort((key_N, group_N))
  sorted_N = group_N[order_N]
  place_N = np.arange(len(group_N))
  first_N = np.maximum.accumulate(np.where(np.r_[True, sorted_N[1:] != sorted_N[:-1]], place_N, 0))
  rank_N = np.empty(len(group_N), np.int64)
  rank_N[order_N] = place_N - first_N
  return rank_N


def _in_batches(compute: Callable[[np.ndarray], jax.Array], rows_Nxd: np.ndarray) -> np.ndarray:
  """`compute` over rows in batches of one shape (the last is padded), so that it is compiled once."""
  batch = min(_BATCH_ROWS, next_power_of_two(len(rows_Nxd)))
  results = []
  for start in range(0, len(rows_Nxd), batch):
    rows_Bxd = rows_Nxd[start : start + batch]
    padded_Bxd = np.pad(rows_Bxd, ((0, batch - len(rows_Bxd)), (0, 0)))
    results.append(np.asarray(compute(padded_Bxd))[: len(rows_Bxd)])
  return np.concatenate(results)


@jax.jit
def _nearest_of_batch(latent_Bxd: jax.Array, codebooks_LxKxd: jax.Array) -> jax.Array:
  return quantize(latent_Bxd, codebooks_LxKxd).codes_NxL


@jax.jit
def _nearest_and_margin(residual_Bxd: jax.Array, codebook_Kxd: jax.Array) -> jax.Array:
  """Nearest code and how much farther the second nearest is: float32 [B, 2] (exact for codes < 2**24)."""
  distances_BxK = squared_distances(residual_Bxd, codebook_Kxd)
  nearest_B = argmin(distances_BxK, axis=1)
  others_BxK = jnp.where(nearest_B[:, None] == jnp.arange(codebook_Kxd.shape[0]), jnp.inf, distances_BxK)
  return jnp.stack([nearest_B.astype(jnp.float32), others_BxK.min(axis=1) - distances_BxK.min(axis=1)], axis=1)


_distances = jax.jit(squared_distances)


def _sinkhorn_codes_of_group(
  residual_Sxd: jax.Array, codebook_Kxd: jax.Array, weight_S: jax.Array, epsilon: float, iterations: int
) -> jax.Array:
  centered_SxK = center_distances(squared_distances(residual_Sxd, codebook_Kxd), weight_S)
  return sinkhorn_codes(centered_SxK, epsilon, iterations, weight_S)


_sinkhorn_codes = jax.jit(jax.vmap(_sinkhorn_codes_of_group, in_axes=(0, None, 0, None, None)), static_argnums=(3, 4))
