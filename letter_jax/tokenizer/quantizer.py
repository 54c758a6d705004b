"""Residual quantisation with the reference's straight-through estimator.

Shapes: N items, L levels, K codes per level, d latent width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from letter_jax.ops.argmin import argmin
from letter_jax.ops.interleave import interleaved_halves
from letter_jax.tokenizer.sinkhorn import center_distances, sinkhorn_codes


class Sinkhorn(NamedTuple):
  """Settings of the optimal transport that spreads a batch over the codes of the last level, in training."""

  epsilon: float
  iterations: int


class Quantized(NamedTuple):
  """The result of residual quantisation, with everything that the losses need."""

  codes_NxL: jax.Array  # int32
  residuals_LxNxd: jax.Array  # r_l, the input of level l
  vectors_LxNxd: jax.Array  # q_l, before the straight-through estimator: gradients reach the codebooks
  z_Nxd: jax.Array  # sum of the straight-through vectors: gradients reach the encoder alone


def squared_distances(residual_Nxd: jax.Array, codebook_Kxd: jax.Array) -> jax.Array:
  """|r - e_k|^2 as [N, K]. HIGHEST: the default precision of TPUs and GPUs can flip an argmin."""
  products_NxK = jnp.matmul(residual_Nxd, codebook_Kxd.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(residual_Nxd**2, axis=1, keepdims=True) + jnp.sum(codebook_Kxd**2, axis=1) - 2 * products_NxK


def quantize(
  latent_Nxd: jax.Array, codebooks_LxKxd: jax.Array, sinkhorn: Sinkhorn | None = None, weight_N: jax.Array | None = None
) -> Quantized:
  """Quantises latents level by level (docs/design.md, residual quantisation; LETTER's RQ-VAE/models/rq.py and vq.py).

  Because r_{l+1} is the residual minus its straight-through vector, whose gradient is that of the residual, no
  gradient of levels >= 2 reaches the encoder. This is the reference's behaviour.

  Args:
    latent_Nxd: float32, encoder outputs.
    codebooks_LxKxd: float32.
    sinkhorn: None takes the nearest code at every level; otherwise the last level is assigned by Sinkhorn (training).
    weight_N: 0 for padded rows, which must take no part in the Sinkhorn plan of the others.

  Returns:
    `Quantized`.
  """
  # The choice of the codes has no gradient, and Sinkhorn's while-loops have none to give.
  codes_NxL = _choose(*jax.lax.stop_gradient((latent_Nxd, codebooks_LxKxd)), sinkhorn, weight_N)
  residual_Nxd, z_Nxd = latent_Nxd, jnp.zeros_like(latent_Nxd)
  residuals, vectors = [], []
  for level, codebook_Kxd in enumerate(codebooks_LxKxd):
    residuals.append(residual_Nxd)
    vectors.append(codebook_Kxd[codes_NxL[:, level]])
    through_Nxd = _straight_through(residual_Nxd, vectors[-1])
    z_Nxd, residual_Nxd = z_Nxd + through_Nxd, residual_Nxd - through_Nxd
  return Quantized(codes_NxL, jnp.stack(residuals), jnp.stack(vectors), z_Nxd)


def _straight_through(residual_Nxd: jax.Array, vector_Nxd: jax.Array) -> jax.Array:
  """The vector, with the gradient of the residual."""
  return residual_Nxd + jax.lax.stop_gradient(vector_Nxd - residual_Nxd)


def _choose(
  latent_Nxd: jax.Array, codebooks_LxKxd: jax.Array, sinkhorn: Sinkhorn | None, weight_N: jax.Array | None
) -> jax.Array:
  """The codes of all levels, int32 [N, L]."""
  nearest = codebooks_LxKxd if sinkhorn is None else codebooks_LxKxd[:-1]
  of_rows = functools.partial(_nearest, nearest)
  codes, residual_Nxd = jax.lax.platform_dependent(
    latent_Nxd, cpu=functools.partial(interleaved_halves, of_rows), default=of_rows
  )
  if sinkhorn is not None:
    centered_NxK = center_distances(squared_distances(residual_Nxd, codebooks_LxKxd[-1]), weight_N)
    codes.append(sinkhorn_codes(centered_NxK, sinkhorn.epsilon, sinkhorn.iterations, weight_N))
  return jnp.stack(codes, axis=1)


def _nearest(codebooks_LxKxd: jax.Array, latent_Nxd: jax.Array) -> tuple[list[jax.Array], jax.Array]:
  """The nearest codes of each level, int32 [N], and the residual [N, d] after the last of them."""
  codes, residual_Nxd = [], latent_Nxd
  for codebook_Kxd in codebooks_LxKxd:
    codes.append(argmin(squared_distances(residual_Nxd, codebook_Kxd), axis=1))
    # Rounded as in `quantize`.
    residual_Nxd = residual_Nxd - _straight_through(residual_Nxd, codebook_Kxd[codes[-1]])
  return codes, residual_Nxd
