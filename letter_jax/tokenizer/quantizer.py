"""Residual quantisation with the reference's straight-through estimator.

Shapes: N items, L levels, K codes per level, d latent width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from letter_jax.tokenizer.extremes import argmin
from letter_jax.tokenizer.sinkhorn import center_distances, sinkhorn_codes


class Sinkhorn(NamedTuple):
  """How the last level spreads a batch over its codes, in training."""

  epsilon: float
  iterations: int


class Quantized(NamedTuple):
  """What residual quantisation gives, with all that the losses need."""

  codes_NxL: jax.Array  # int32
  residuals_LxNxd: jax.Array  # r_l, what level l had to quantise
  vectors_LxNxd: jax.Array  # q_l, before the straight-through: gradients reach the codebooks
  z_Nxd: jax.Array  # sum of the straight-through vectors: gradients reach the encoder alone


def squared_distances(residual_Nxd, codebook_Kxd):
  """|r - e_k|^2 as [N, K]. HIGHEST: the default precision of TPUs and GPUs can flip an argmin."""
  products_NxK = jnp.matmul(residual_Nxd, codebook_Kxd.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(residual_Nxd**2, axis=1, keepdims=True) + jnp.sum(codebook_Kxd**2, axis=1) - 2 * products_NxK


def quantize(latent_Nxd, codebooks_LxKxd, sinkhorn: Sinkhorn | None = None, weight_N=None) -> Quantized:
  """Quantises latents level by level (DESIGN, residual quantisation; LETTER's RQ-VAE/models/rq.py and vq.py).

  Because r_{l+1} is the residual minus its straight-through vector, whose gradient is that of the residual, no
  gradient of levels >= 2 reaches the encoder. The reference behaves so, and it is kept.

  Args:
    latent_Nxd: float32, encoder outputs.
    codebooks_LxKxd: float32.
    sinkhorn: None takes the nearest code at every level; otherwise the last level goes by Sinkhorn (training).
    weight_N: 0 for padded rows, which must take no part in the Sinkhorn plan of the others.

  Returns:
    `Quantized`.
  """
  levels = codebooks_LxKxd.shape[0]
  residual_Nxd, z_Nxd = latent_Nxd, jnp.zeros_like(latent_Nxd)
  codes, residuals, vectors = [], [], []
  for level in range(levels):
    codebook_Kxd = codebooks_LxKxd[level]
    # The choice of a code has no gradient; without the stop the Sinkhorn iterations would be differentiated in vain.
    distances_NxK = jax.lax.stop_gradient(squared_distances(residual_Nxd, codebook_Kxd))
    if sinkhorn is not None and level == levels - 1:
      centered_NxK = center_distances(distances_NxK, weight_N)
      codes_N = sinkhorn_codes(centered_NxK, sinkhorn.epsilon, sinkhorn.iterations, weight_N)
    else:
      codes_N = argmin(distances_NxK, axis=1)
    vector_Nxd = codebook_Kxd[codes_N]
    through_Nxd = residual_Nxd + jax.lax.stop_gradient(vector_Nxd - residual_Nxd)
    codes.append(codes_N)
    residuals.append(residual_Nxd)
    vectors.append(vector_Nxd)
    z_Nxd = z_Nxd + through_Nxd
    residual_Nxd = residual_Nxd - through_Nxd
  return Quantized(jnp.stack(codes, axis=1), jnp.stack(residuals), jnp.stack(vectors), z_Nxd)
