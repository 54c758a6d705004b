import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.configuration import RQVAEConfig
from letter_jax.system.errors import InputError
from letter_jax.tokenizer.losses import (
  NO_POSITIVE,
  CodeClusters,
  TokenizerLosses,
  clusters_of_codes,
  sample_positives,
  tokenizer_losses,
)
from letter_jax.tokenizer.rqvae import RQVAE

CONFIG = RQVAEConfig(hidden=(10,), latent_dim=4, levels=3, codebook_size=6, commitment=0.25, alpha=0.3, beta=0.2)
ITEMS = 12


@functools.cache
def example():
  random = np.random.default_rng(0)
  x_NxT = random.normal(size=(ITEMS, 9)).astype(np.float32)
  collaborative_Nxd = random.normal(size=(ITEMS, 4)).astype(np.float32)
  params = jax.jit(lambda key: RQVAE(CONFIG, 9).init(key, x_NxT, training=False))(jax.random.key(0))['params']
  params = {**params, 'codebooks': jnp.asarray(random.normal(size=(3, 6, 4)), jnp.float32)}
  output = output_of(params, x_NxT)
  positives_NxL = (np.asarray(output.quantized.codes_NxL) + 1) % 6
  return params, x_NxT, collaborative_Nxd, positives_NxL


@jax.jit
def output_of(params, x_NxT, weight_N=None):
  return RQVAE(CONFIG, 9).apply({'params': params}, x_NxT, training=True, weight_N=weight_N)


@jax.jit
def losses_of(params, x_NxT, collaborative_Nxd, positives_NxL, weight_N=None):
  output = output_of(params, x_NxT, weight_N)
  return tokenizer_losses(CONFIG, output, params['codebooks'], x_NxT, collaborative_Nxd, positives_NxL, weight_N)


@jax.jit
@jax.grad
def gradients_of(params, given, term_weights):
  """Gradients of a weighted sum of all terms: the weights are an argument, so that one compilation serves all."""
  terms = losses_of(params, *given)
  return sum(jnp.sum(weight * term) for weight, term in zip(term_weights, terms))


def weights(**named):
  """Weights of the terms (0 where not named)."""
  zeros = TokenizerLosses(*[np.float32(0)] * 4, *[np.zeros(3, np.float32)] * 3)
  return zeros._replace(**{name: np.float32(value) for name, value in named.items()})


def cross_entropy(logits, target):
  return np.log(np.sum(np.exp(logits))) - logits[target]


@pytest.mark.parametrize('shape', [(ITEMS, 3), (ITEMS, 5), (ITEMS - 1, 4)])
def test_collaborative_rows_of_a_different_shape(shape):
  params, x_NxT, _, positives_NxL = example()
  with pytest.raises(
    InputError, match=rf'collaborative rows have shape \[{shape[0]}, {shape[1]}\]; expected \[12, 4\]'
  ):
    losses_of(params, x_NxT, np.zeros(shape, np.float32), positives_NxL)


def test_every_term_against_loops_over_items():
  params, x_NxT, collaborative_Nxd, positives_NxL = example()
  output = output_of(params, x_NxT)
  found = losses_of(*example())
  np.testing.assert_allclose(found.reconstruction, np.mean((output.reconstruction_NxT - x_NxT) ** 2), rtol=1e-5)
  z_Nxd = np.asarray(output.quantized.z_Nxd)
  contrastive = np.mean([cross_entropy(z_Nxd[i] @ collaborative_Nxd.T, i) for i in range(ITEMS)])
  np.testing.assert_allclose(found.contrastive, contrastive, rtol=1e-5)
  codes_NxL, diversity_L, mse_L = np.asarray(output.quantized.codes_NxL), [], []
  for level, codebook_Kxd in enumerate(np.asarray(params['codebooks'])):
    terms = []
    for code, positive in zip(codes_NxL[:, level], positives_NxL[:, level]):
      others = [k for k in range(6) if k != code]
      terms.append(cross_entropy(codebook_Kxd[others] @ codebook_Kxd[code], others.index(positive)))
    diversity_L.append(np.mean(terms))
    mse_L.append(np.mean((codebook_Kxd[codes_NxL[:, level]] - output.quantized.residuals_LxNxd[level]) ** 2))
  np.testing.assert_allclose(found.diversity_L, diversity_L, rtol=1e-5)
  np.testing.assert_allclose(found.codebook_L, mse_L, rtol=1e-5)
  np.testing.assert_allclose(found.commitment_L, mse_L, rtol=1e-5)
  quantizer = np.mean(np.array(mse_L) * 1.25 + 0.2 * np.array(diversity_L))
  np.testing.assert_allclose(found.quantizer, quantizer, rtol=1e-5)
  np.testing.assert_allclose(found.total, found.reconstruction + quantizer + 0.3 * contrastive, rtol=1e-5)


@pytest.mark.parametrize(
  'term_weights, reached',
  [
    (weights(reconstruction=1), {'encoder', 'decoder'}),
    (weights(contrastive=1), {'encoder'}),
    (weights(codebook_L=[1, 1, 1]), {'codebooks'}),
    (weights(commitment_L=[1, 0, 0]), {'encoder'}),
    (weights(commitment_L=[0, 1, 1]), set()),
    (weights(diversity_L=[1, 1, 1]), {'codebooks'}),
  ],
  ids=['reconstruction', 'contrastive', 'codebook', 'commitment_1', 'commitment_rest', 'diversity'],
)
def test_each_term_reaches_its_own_parameters(term_weights, reached):
  params, *given = example()
  gradients = gradients_of(params, given, term_weights)
  sizes = {name: max(np.abs(leaf).max() for leaf in jax.tree.leaves(part)) for name, part in gradients.items()}
  assert {name for name, size in sizes.items() if size > 1e-6} == reached


def test_padded_rows_count_in_no_term():
  params, x_NxT, collaborative_Nxd, positives_NxL = example()
  pad = lambda rows: np.concatenate([rows, 50 + np.zeros_like(rows[:5])])
  padded = (pad(x_NxT), pad(collaborative_Nxd), np.concatenate([positives_NxL, positives_NxL[:5]]))
  weight_N = np.r_[np.ones(ITEMS), np.zeros(5)].astype(np.float32)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-5),
    losses_of(params, *padded, weight_N),
    losses_of(*example()),
  )
  alone = gradients_of(params, example()[1:], weights(total=1))
  with_padding = gradients_of(params, (*padded, weight_N), weights(total=1))
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), with_padding, alone)
  nothing = losses_of(params, *padded, np.zeros(ITEMS + 5, np.float32))
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_items_without_a_positive_are_left_out_of_diversity():
  params, x_NxT, collaborative_Nxd, positives_NxL = example()
  some_NxL = positives_NxL.copy()
  some_NxL[::2, 1] = NO_POSITIVE
  some_NxL[:, 2] = NO_POSITIVE
  found = losses_of(params, x_NxT, collaborative_Nxd, some_NxL)
  one_NxL = [np.where(np.arange(ITEMS)[:, None] == i, positives_NxL, NO_POSITIVE) for i in range(1, ITEMS, 2)]
  alone = [losses_of(params, x_NxT, collaborative_Nxd, given).diversity_L[1] for given in one_NxL]
  np.testing.assert_allclose(found.diversity_L[1], np.mean(alone), rtol=1e-5)
  assert found.diversity_L[2] == 0
  gradients = gradients_of(params, (x_NxT, collaborative_Nxd, some_NxL), weights(total=1))
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_positives_are_uniform_over_the_other_codes_of_the_cluster():
  labels_LxK = np.array([[0, 1, 0, 2, 0, 1], [5, 5, 5, 5, 5, 5]], np.int32)
  codes_NxL = np.tile(np.array([[2, 3], [1, 0], [3, 5]], np.int32), (4000, 1))
  clusters = jax.jit(CodeClusters.of)(labels_LxK)
  positives_NxL = np.asarray(jax.jit(sample_positives)(jax.random.key(1), codes_NxL, clusters))
  assert positives_NxL.dtype == np.int32
  shares = lambda item, level: np.bincount(positives_NxL[item::3, level], minlength=6) / 4000
  np.testing.assert_allclose(shares(0, 0), [0.5, 0, 0, 0, 0.5, 0], atol=0.04)
  np.testing.assert_allclose(shares(1, 0), [0, 0, 0, 0, 0, 1])
  assert np.all(positives_NxL[2::3, 0] == NO_POSITIVE)
  np.testing.assert_allclose(shares(0, 1), [0.2, 0.2, 0.2, 0, 0.2, 0.2], atol=0.04)
  np.testing.assert_allclose(shares(2, 1), [0.2, 0.2, 0.2, 0.2, 0.2, 0], atol=0.04)


def test_positives_come_from_the_clusters_of_the_codebooks():
  clumps_Kxd = np.repeat(30 * np.random.default_rng(0).normal(size=(4, 5)), 3, axis=0)
  codebooks_LxKxd = np.stack([clumps_Kxd, clumps_Kxd[::-1]]).astype(np.float32)
  clusters = clusters_of_codes(jax.random.key(0), codebooks_LxKxd, 4)
  codes_NxL = np.tile(np.arange(12, dtype=np.int32)[:, None], (20, 2))
  positives_NxL = np.asarray(sample_positives(jax.random.key(1), codes_NxL, clusters))
  assert np.all(positives_NxL // 3 == codes_NxL // 3) and np.all(positives_NxL != codes_NxL)
