"""Sinkhorn-Knopp in the log domain: float32 only, at the paper's epsilon.

LETTER's last level spreads a batch evenly over the codes: with centred distances in [-1, 1] and epsilon = 0.003 the
kernel exp(-d / epsilon) reaches exp(333). The reference goes to float64 for it, which a TPU does not have. Here the
kernel is never formed without its potentials: Q = exp(logits + row_B + column_K), and only differences of logits of
one row matter, so the smallest distance of each row is taken out first (exact in float32, where the rounding error of
a logit of 333 alone would be 3e-5).

Shapes: B rows (items of the batch), K columns (codes).
"""

import jax
import jax.numpy as jnp

from letter_jax.ops.argmin import argmax

# The log(0) of a padded row: finite, so that a batch of only padding does not become NaN.
_LOG_ZERO = -1e30
_TINY = 1e-30
_ROUNDING = 1e-4  # of log odds whose terms reach 1 / epsilon
_PLAIN_RANGE = 1e29  # how much entries of the kernel may grow before it is computed again
_MANY = 4  # items per code
_HIGHEST = jax.lax.Precision.HIGHEST


def center_distances(distances_BxK: jax.Array, weight_B: jax.Array | None = None) -> jax.Array:
  """Distances mapped to [-1, 1] by (d - middle) / (half range + 1e-5); rows of weight 0 do not count for the range.

  Source: `center_distance_for_constraint` of LETTER's RQ-VAE/models/vq.py.
  """
  if weight_B is None:
    low, high = distances_BxK.min(), distances_BxK.max()
  else:
    real_Bx1 = weight_B[:, None] > 0
    low = jnp.min(distances_BxK, where=real_Bx1, initial=jnp.inf)
    high = jnp.max(distances_BxK, where=real_Bx1, initial=-jnp.inf)
    low, high = (jnp.where(jnp.any(real_Bx1), bound, 0.0) for bound in (low, high))
  middle = (high + low) / 2
  return (distances_BxK - middle) / (high - middle + 1e-5)


def sinkhorn(centered_BxK: jax.Array, epsilon: float, iterations: int, weight_B: jax.Array | None = None) -> jax.Array:
  """Entropy-regularised transport plan of items to codes, scaled so that a row sums to about one.

  One iteration normalises every row to 1/B, then every column to 1/K; the plan times B is returned. The column comes
  last, so that it is the columns whose sums are exact (B/K). This is the reference's order, and it matters: at 0.003
  fifty iterations have not converged.

  Args:
    centered_BxK: float32, from `center_distances`.
    epsilon: temperature of the transport.
    iterations: number of iterations, at least one.
    weight_B: 0 for padded rows, which take no share of any column; None: all rows count.

  Returns:
    plan_BxK, float32; rows of weight 0 are zero where any other row counts.
  """
  logits_BxK = _scaled_rows(centered_BxK, epsilon, iterations, weight_B)
  items = len(centered_BxK) if weight_B is None else jnp.sum(weight_B > 0)
  return jax.nn.softmax(logits_BxK, axis=0) * (items / centered_BxK.shape[1])


def sinkhorn_codes(
  centered_BxK: jax.Array, epsilon: float, iterations: int, weight_B: jax.Array | None = None
) -> jax.Array:
  """The code of every item, int32 [B]: where its row of the plan of `sinkhorn` is largest.

  With fewer items than codes an item has several columns nearly to itself, and in float32 their entries are equal:
  1 - 1e-9 is 1. So the entries p (as shares of their column) are compared by their log odds, log p - log(1 - p), which
  tell them apart and have the same order. With many items per code no share comes near 1, and log p is enough. Items
  for which these are equal too, such as identical ones, take the nearest code.
  """
  rows, columns = centered_BxK.shape
  logits_BxK = _scaled_rows(centered_BxK, epsilon, iterations, weight_B)
  if rows < _MANY * columns:
    return _largest_odds(logits_BxK, centered_BxK)
  if weight_B is None:
    return _largest_share(logits_BxK, centered_BxK)
  return jax.lax.cond(jnp.sum(weight_B > 0) >= _MANY * columns, _largest_share, _largest_odds, logits_BxK, centered_BxK)


def _largest_share(logits_BxK: jax.Array, centered_BxK: jax.Array) -> jax.Array:
  """int32 [B]: for every item the code with the largest log p."""
  return argmax(jax.nn.log_softmax(logits_BxK, axis=0) - _ROUNDING * centered_BxK, axis=1)


def _largest_odds(logits_BxK: jax.Array, centered_BxK: jax.Array) -> jax.Array:
  """int32 [B]: for every item the code with the largest log p - log(1 - p)."""
  largest_K = jnp.max(logits_BxK, axis=0)
  is_first_BxK = jnp.arange(len(logits_BxK))[:, None] == argmax(logits_BxK, axis=0)
  # log(1 - p) is accurate where p <= 1/2; only the largest entry of a column needs the sum of the others. (If two are
  # equally large, each is among the others of the other one: the sum is the same for both. They are not compared by
  # ==, because a compiler may compute the two sides separately and round them differently.)
  others_K = jax.nn.logsumexp(jnp.where(is_first_BxK, -jnp.inf, logits_BxK), axis=0)
  all_K = jnp.logaddexp(others_K, largest_K)
  is_largest_BxK = logits_BxK >= largest_K - _ROUNDING
  share_BxK = jnp.where(is_largest_BxK, 0.0, jnp.exp(logits_BxK - all_K))
  odds_BxK = logits_BxK - jnp.where(is_largest_BxK, others_K, all_K + jnp.log1p(-share_BxK))
  return argmax(odds_BxK - _ROUNDING * centered_BxK, axis=1)


def _scaled_rows(centered_BxK: jax.Array, epsilon: float, iterations: int, weight_B: jax.Array | None) -> jax.Array:
  """Log of the kernel with scaled rows, before the last normalisation of the columns (a softmax over them)."""
  rows, columns = centered_BxK.shape
  real_B = jnp.ones(rows, bool) if weight_B is None else weight_B > 0
  count = jnp.maximum(jnp.sum(real_B), 1)
  logits_BxK = -(centered_BxK - centered_BxK.min(axis=1, keepdims=True)) / epsilon  # the largest of a row is 0
  row_B = -jnp.log(count * jnp.sum(jnp.exp(logits_BxK), axis=1))
  logits_BxK += jnp.where(real_B, 0.0, _LOG_ZERO)[:, None]
  column_K = -jnp.max(logits_BxK + row_B[:, None], axis=0)

  # Iterations are plain products with the kernel exp(logits + row + column), far cheaper than as many exponentials,
  # until the scales could raise what underflows in that kernel (1e-38) to where it matters: then the kernel is
  # computed again. One iteration multiplies an entry by BK at most: all sums lie between 1/BK and 1, so that a row
  # scaled to 1/B shrinks a column B-fold at most, and vice versa. (The first kernel's columns are not normalised yet:
  # their largest entries are 1, and the first scales of the columns complete their first normalisation.) Each round
  # begins with a growth of `count`, far below the largest, so that it makes an iteration and the rounds end.
  largest = _PLAIN_RANGE / (rows * columns)

  def kernel_round(potentials: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    done, row_B, column_K = potentials
    kernel_BxK = jnp.exp(logits_BxK + row_B[:, None] + column_K)

    def within_range(scales: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
      done, u_B, v_K = scales
      growth = jnp.sum(u_B, where=real_B) * jnp.max(v_K)
      return (done < iterations - 1) & ~(growth > largest)  # a NaN takes one round

    def iterate(scales: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
      done, u_B, _ = scales
      v_K = 1 / (columns * jnp.maximum(jnp.matmul(u_B, kernel_BxK, precision=_HIGHEST), _TINY))
      u_B = 1 / (count * jnp.maximum(jnp.matmul(kernel_BxK, v_K, precision=_HIGHEST), _TINY))
      return done + 1, u_B, v_K

    done, u_B, v_K = jax.lax.while_loop(within_range, iterate, (done, jnp.ones(rows), jnp.ones(columns)))
    return done, row_B + jnp.log(u_B), column_K + jnp.log(v_K)

  _, row_B, _ = jax.lax.while_loop(
    lambda potentials: potentials[0] < iterations - 1, kernel_round, (jnp.zeros((), jnp.int32), row_B, column_K)
  )
  return logits_BxK + row_B[:, None]
