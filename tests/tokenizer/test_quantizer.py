import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.tokenizer import quantizer
from letter_jax.tokenizer.quantizer import Sinkhorn

SINKHORN = Sinkhorn(0.003, 50)
quantize = jax.jit(quantizer.quantize, static_argnums=2)


def latent_and_codebooks(items=24, levels=3, codes=8, width=6, seed=0):
  random = np.random.default_rng(seed)
  latent_Nxd = random.normal(size=(items, width)).astype(np.float32)
  return latent_Nxd, random.normal(size=(levels, codes, width)).astype(np.float32)


def nearest_by_hand(latent_Nxd, codebooks_LxKxd):
  residual_Nxd, codes = latent_Nxd.astype(np.float64), []
  for codebook_Kxd in codebooks_LxKxd:
    codes.append(np.argmin(np.sum((residual_Nxd[:, None] - codebook_Kxd) ** 2, axis=-1), axis=1))
    residual_Nxd = residual_Nxd - codebook_Kxd[codes[-1]]
  return np.stack(codes, axis=1), residual_Nxd


def test_nearest_codes_level_by_level():
  latent_Nxd, codebooks_LxKxd = latent_and_codebooks()
  found = quantize(latent_Nxd, codebooks_LxKxd)
  codes_NxL, left_Nxd = nearest_by_hand(latent_Nxd, codebooks_LxKxd)
  assert found.codes_NxL.dtype == jnp.int32
  np.testing.assert_array_equal(found.codes_NxL, codes_NxL)
  np.testing.assert_allclose(found.z_Nxd, latent_Nxd - left_Nxd, atol=1e-5)
  np.testing.assert_allclose(found.residuals_LxNxd[0], latent_Nxd)
  np.testing.assert_allclose(found.residuals_LxNxd[-1] - found.vectors_LxNxd[-1], left_Nxd, atol=1e-5)
  np.testing.assert_allclose(found.vectors_LxNxd[1], codebooks_LxKxd[1][codes_NxL[:, 1]])


def test_sinkhorn_spreads_the_last_level_only():
  latent_Nxd, codebooks_LxKxd = latent_and_codebooks()
  codebooks_LxKxd[-1, 1:] += 30  # all items are nearest to the last level's code 0
  nearest = quantize(latent_Nxd, codebooks_LxKxd).codes_NxL
  spread = quantize(latent_Nxd, codebooks_LxKxd, SINKHORN).codes_NxL
  np.testing.assert_array_equal(spread[:, :-1], nearest[:, :-1])
  assert np.unique(nearest[:, -1]).size == 1
  assert np.bincount(spread[:, -1], minlength=8).max() <= 6


def test_padded_rows_do_not_change_the_codes_of_others():
  latent_Nxd, codebooks_LxKxd = latent_and_codebooks()
  padded_Nxd = np.concatenate([latent_Nxd, np.tile(5 * latent_Nxd[:1], (20, 1))])
  weight_N = np.r_[np.ones(24), np.zeros(20)].astype(np.float32)
  alone = quantize(latent_Nxd, codebooks_LxKxd, SINKHORN).codes_NxL
  np.testing.assert_array_equal(quantize(padded_Nxd, codebooks_LxKxd, SINKHORN, weight_N).codes_NxL[:24], alone)
  # Without the weight they would: they widen the range of the distances and take their share of the codes.
  assert np.any(quantize(padded_Nxd, codebooks_LxKxd, SINKHORN).codes_NxL[:24] != alone)


def test_gradients_take_the_straight_way():
  latent_Nxd, codebooks_LxKxd = latent_and_codebooks()
  through = jax.grad(lambda *given: jnp.sum(quantize(*given, SINKHORN).z_Nxd), argnums=(0, 1))
  latent_gradient, codebooks_gradient = through(latent_Nxd, codebooks_LxKxd)
  np.testing.assert_allclose(latent_gradient, 1, atol=1e-6)
  assert not np.any(codebooks_gradient)
  of_residuals = jax.jacrev(lambda latent: jnp.sum(quantize(latent, codebooks_LxKxd).residuals_LxNxd, axis=(1, 2)))
  for level, gradient in enumerate(of_residuals(latent_Nxd)):
    np.testing.assert_allclose(gradient, 1.0 if level == 0 else 0.0, atol=1e-6)
  of_vectors = jax.grad(lambda codebooks: jnp.sum(quantize(latent_Nxd, codebooks).vectors_LxNxd))(codebooks_LxKxd)
  codes_NxL = nearest_by_hand(latent_Nxd, codebooks_LxKxd)[0]
  counts_LxK = np.stack([np.bincount(codes_N, minlength=8) for codes_N in codes_NxL.T])
  np.testing.assert_allclose(of_vectors, np.broadcast_to(counts_LxK[..., None], (3, 8, 6)))
