"""Balanced k-means on the device: initial codebooks, and the clusters of codes for the diversity loss.

The reference calls k-means-constrained (a minimum-cost flow on the host) for both, with bounds that cannot be met for
many sizes. Here every cluster holds between `size_bounds` points, whatever the sizes, and everything runs in one
compiled function:

1. seeds by k-means++;
2. Lloyd iterations with a price on every cluster, raised while it is too full and lowered while it is too empty, so
   that the clusters grow to where the bounds nearly hold;
3. the few points still in excess leave, cheapest first, until the bounds hold exactly;
4. Lloyd iterations that keep the bounds: a point moves to a nearer center only if its cluster can spare it and the
   other has room. Each of them lowers the inertia.

Shapes: N points, K clusters, d dimensions, L levels.
"""

import functools

import jax
import jax.numpy as jnp

from letter_jax.ops.argmin import argmin
from letter_jax.tokenizer.quantizer import squared_distances

_PRICED_ITERATIONS = 14
_BOUNDED_ITERATIONS = 8
_SEED_TRIALS = 8
# Small problems, the clusters of codes among them, are run from several seeds: the fewer the points, the more the
# result depends on them, and the less a run costs.
_SMALL, _SMALL_STARTS = 2**17, 4
# Up to this many points are ranked by comparing all pairs, which is faster than sorting (for the 256 codes of a
# codebook, a whole clustering takes 6 instead of 15 ms on two CPU cores).
_COMPARED = 1024
# Relative to the points' root mean square; without it equal points would all make the same choice, round after round.
_JITTER = 1e-4


def size_bounds(points: int, clusters: int) -> tuple[int, int]:
  """Smallest and largest number of points of a cluster: half and twice the mean, as far as that can be met.

  The reference's bounds (23 to 92 for 12,101 items in 256 clusters, 10 to 60 for 256 codes in 10) are these or close
  to them. Where there are enough points, no cluster is a singleton: a code alone in its cluster has no positive.
  """
  return max(points // (2 * clusters), min(2, points // clusters)), -(-2 * points // clusters)


def start_codebooks(key: jax.Array, latent_Nxd: jax.Array, levels: int, codebook_size: int) -> jax.Array:
  """Codebooks [L, K, d] to start training from: balanced k-means of the residuals, level by level.

  Args:
    key: PRNG key.
    latent_Nxd: float32, the latents of all items.
    levels, codebook_size: L and K; K may be larger than N (the surplus codes equal others).
  """

  def level(residual_Nxd: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    centers_Kxd, _ = balanced_kmeans(key, residual_Nxd, codebook_size)
    # The nearest center and not the balanced label: it is what the quantizer will choose.
    nearest_N = argmin(squared_distances(residual_Nxd, centers_Kxd), axis=1)
    return residual_Nxd - centers_Kxd[nearest_N], centers_Kxd

  return jax.lax.scan(level, latent_Nxd, jax.random.split(key, levels))[1]


def cluster_codes(key: jax.Array, codebooks_LxKxd: jax.Array, clusters: int) -> jax.Array:
  """Cluster labels [L, K] int32 (0..clusters-1) of every codebook's codes, for the diversity loss.

  If `clusters` is more than K, every code is a cluster (then no code has a positive).
  """
  levels, codes, _ = codebooks_LxKxd.shape
  cluster = functools.partial(balanced_kmeans, clusters=min(clusters, codes))
  return jax.vmap(cluster)(jax.random.split(key, levels), codebooks_LxKxd)[1]


@functools.partial(jax.jit, static_argnames='clusters')
def balanced_kmeans(key: jax.Array, points_Nxd: jax.Array, clusters: int) -> tuple[jax.Array, jax.Array]:
  """k-means whose cluster sizes lie within `size_bounds`.

  Args:
    key: PRNG key; the same key gives the same clusters.
    points_Nxd: float32, finite; N >= 1, repeated points allowed.
    clusters: K >= 1, even larger than N: a cluster without a point then has one of the points as its center.

  Returns:
    centers_Kxd float32, the means of the clusters; labels_N int32.
  """
  points = points_Nxd.shape[0]
  start_key, jitter_key = jax.random.split(key)
  # In units where prices need no tuning: mean 0, root mean square 1.
  x_Nxd = points_Nxd - jnp.mean(points_Nxd, axis=0)
  spread = jnp.sqrt(jnp.mean(jnp.sum(x_Nxd**2, axis=1)))
  x_Nxd = x_Nxd / jnp.where(spread > 0, spread, 1.0) + _JITTER * jax.random.normal(jitter_key, points_Nxd.shape)
  starts = _SMALL_STARTS if points * clusters <= _SMALL else 1
  run = functools.partial(_one_start, x_Nxd=x_Nxd, clusters=clusters)
  # Greedy seeds find every clump, plain ones put more seeds into large clumps: neither is always better.
  inertia_S, labels_SxN = jax.vmap(run)(jax.random.split(start_key, starts), jnp.arange(starts) % 2 == 1)
  labels_N = labels_SxN[jnp.argmin(inertia_S)]
  # From the original points, without jitter and scaling.
  return _centers(points_Nxd, labels_N, points_Nxd[jnp.arange(clusters) % points]), labels_N


def _one_start(key: jax.Array, greedy: jax.Array, x_Nxd: jax.Array, clusters: int) -> tuple[jax.Array, jax.Array]:
  """Inertia and labels_N after the steps 1 to 4 above."""
  points = x_Nxd.shape[0]
  smallest, largest = size_bounds(points, clusters)

  def priced(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
    centers_Kxd, price_K, _ = state
    cost_NxK = squared_distances(x_Nxd, centers_Kxd) + price_K
    labels_N = argmin(cost_NxK, axis=1)
    count_K = jnp.bincount(labels_N, length=clusters)
    unit = jnp.mean(jnp.min(cost_NxK, axis=1) - price_K[labels_N])  # the mean squared distance to a center
    excess_K = (count_K - jnp.clip(count_K, smallest, largest)) * (clusters / points)
    # A price that is no longer needed fades: within the bounds the nearest center is the right one.
    price_K = jnp.where(excess_K == 0, 0.8 * price_K, price_K + 0.2 * unit * jnp.clip(excess_K, -1, 1))
    return _centers(x_Nxd, labels_N, centers_Kxd), price_K, labels_N

  def bounded(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    centers_Kxd, labels_N = state
    count_K = jnp.bincount(labels_N, length=clusters)
    labels_N = _move(
      squared_distances(x_Nxd, centers_Kxd),
      labels_N,
      jnp.maximum(count_K - smallest, 0),
      jnp.maximum(largest - count_K, 0),
      only_gains=True,
    )
    return _centers(x_Nxd, labels_N, centers_Kxd), labels_N

  state = (_seeds(key, greedy, x_Nxd, clusters), jnp.zeros(clusters), jnp.zeros(points, jnp.int32))
  centers_Kxd, _, labels_N = jax.lax.fori_loop(0, _PRICED_ITERATIONS, priced, state)
  labels_N = _repair(squared_distances(x_Nxd, centers_Kxd), labels_N, clusters, smallest, largest)
  centers_Kxd = _centers(x_Nxd, labels_N, centers_Kxd)
  centers_Kxd, labels_N = jax.lax.fori_loop(0, _BOUNDED_ITERATIONS, bounded, (centers_Kxd, labels_N))
  return jnp.sum((x_Nxd - centers_Kxd[labels_N]) ** 2), labels_N


def _centers(x_Nxd: jax.Array, labels_N: jax.Array, fallback_Kxd: jax.Array) -> jax.Array:
  """Means of the clusters; `fallback_Kxd` where a cluster has no point.

  A product and not a scatter: the order of its sums, and so the result, is fixed on a GPU too.
  """
  members_NxK = jax.nn.one_hot(labels_N, fallback_Kxd.shape[0])
  count_K = jnp.sum(members_NxK, axis=0)
  sums_Kxd = jnp.matmul(members_NxK.T, x_Nxd, precision=jax.lax.Precision.HIGHEST)
  return jnp.where(count_K[:, None] > 0, sums_Kxd / jnp.maximum(count_K, 1)[:, None], fallback_Kxd)


def _seeds(key: jax.Array, greedy: jax.Array, x_Nxd: jax.Array, clusters: int) -> jax.Array:
  """k-means++: the next seed is a point drawn in proportion to its squared distance from the previous seeds.

  Greedy: several are drawn, and the one that brings the points nearest to a seed is taken.
  """
  points, width = x_Nxd.shape
  uniform_KxT = jax.random.uniform(key, (clusters, _SEED_TRIALS))

  def draw(k: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    seeds_Kxd, distance_N = state
    sum_N = jnp.cumsum(distance_N)
    drawn_T = jnp.minimum(jnp.searchsorted(sum_N, uniform_KxT[k] * sum_N[-1], side='right'), points - 1)
    distance_TxN = jnp.minimum(distance_N, jnp.maximum(squared_distances(x_Nxd[drawn_T], x_Nxd), 0.0))
    best = jnp.where(greedy, jnp.argmin(jnp.sum(distance_TxN, axis=1)), 0)
    # Never zero: once every point is a seed, the rest are drawn uniformly.
    return seeds_Kxd.at[k].set(x_Nxd[drawn_T[best]]), distance_TxN[best] + 1e-30

  return jax.lax.fori_loop(0, clusters, draw, (jnp.zeros((clusters, width)), jnp.ones(points)))[0]


def _repair(cost_NxK: jax.Array, labels_N: jax.Array, clusters: int, smallest: int, largest: int) -> jax.Array:
  """Labels within the bounds: overfull clusters shed points, then underfull ones are filled, cheapest moves first.

  Each round moves at least one point for good, because K * smallest <= N <= K * largest: while one cluster has too
  many points a different one has room, and while one has too few a different one can spare some.
  """

  def count(labels_N: jax.Array) -> jax.Array:
    return jnp.bincount(labels_N, length=clusters)

  def shed(labels_N: jax.Array) -> jax.Array:
    count_K = count(labels_N)
    return _move(cost_NxK, labels_N, jnp.maximum(count_K - largest, 0), jnp.maximum(largest - count_K, 0))

  def fill(labels_N: jax.Array) -> jax.Array:
    count_K = count(labels_N)
    return _move(cost_NxK, labels_N, jnp.maximum(count_K - smallest, 0), jnp.maximum(smallest - count_K, 0))

  # NaN costs move nothing: a training that diverged must get to where it is reported.
  finite = jnp.all(jnp.isfinite(cost_NxK))
  labels_N = jax.lax.while_loop(lambda labels_N: finite & jnp.any(count(labels_N) > largest), shed, labels_N)
  return jax.lax.while_loop(lambda labels_N: finite & jnp.any(count(labels_N) < smallest), fill, labels_N)


def _move(
  cost_NxK: jax.Array, labels_N: jax.Array, spare_K: jax.Array, room_K: jax.Array, only_gains: bool = False
) -> jax.Array:
  """Moves points to their cheapest other cluster with room: at most spare_K out of a cluster, room_K into one."""
  clusters = cost_NxK.shape[1]
  open_NxK = (room_K > 0) & (labels_N[:, None] != jnp.arange(clusters))
  closed_cost_NxK = jnp.where(open_NxK, cost_NxK, jnp.inf)
  target_N = argmin(closed_cost_NxK, axis=1)
  place_N = jnp.arange(labels_N.shape[0])
  loss_N = closed_cost_NxK[place_N, target_N] - cost_NxK[place_N, labels_N]
  may_N = jnp.isfinite(loss_N) & (loss_N < 0 if only_gains else True)
  leaves_N = may_N & (_rank(labels_N, loss_N, may_N, clusters) < spare_K[labels_N])
  moves_N = leaves_N & (_rank(target_N, loss_N, leaves_N, clusters) < room_K[target_N])
  return jnp.where(moves_N, target_N, labels_N)


def _rank(group_N: jax.Array, key_N: jax.Array, counts_N: jax.Array, groups: int) -> jax.Array:
  """Position of every point by ascending key among the points of its group that count (undefined for the others)."""
  points = group_N.shape[0]
  if points <= _COMPARED:
    place_N = jnp.arange(points)
    before_NxN = (key_N[:, None] < key_N) | ((key_N[:, None] == key_N) & (place_N[:, None] < place_N))
    return jnp.sum(before_NxN & counts_N[:, None] & (group_N[:, None] == group_N), axis=0, dtype=place_N.dtype)
  group_N = jnp.where(counts_N, group_N, groups)
  order_N = jnp.lexsort((key_N, group_N))
  sorted_N = group_N[order_N]
  place_N = jnp.arange(points)
  starts_N = jnp.concatenate([jnp.ones(1, bool), sorted_N[1:] != sorted_N[:-1]])
  first_N = jax.lax.cummax(jnp.where(starts_N, place_N, 0))
  return jnp.zeros(points, place_N.dtype).at[order_N].set(place_N - first_N)
