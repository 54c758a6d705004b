"""The losses of LETTER's tokenizer (docs/design.md; LETTER's RQ-VAE/models/vq.py and rqvae.py).

Which parameters each term reaches follows from the stop-gradients here and in `quantizer.quantize`:
reconstruction -> encoder and decoder; codebook -> codebooks; commitment -> encoder (first level only);
diversity -> codebooks; contrastive -> encoder.

Shapes: N items of the batch, T text dimensions, L levels, K codes per level, d latent width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from letter_jax.configuration import RQVAEConfig
from letter_jax.system.errors import InputError
from letter_jax.tokenizer.clustering import cluster_codes
from letter_jax.tokenizer.rqvae import RQVAEOutput

NO_POSITIVE = -1
_EXCLUDED = -1e30  # logit of an entry that a softmax must not count
_HIGHEST = jax.lax.Precision.HIGHEST


class TokenizerLosses(NamedTuple):
  """All loss terms of a batch, unweighted: float32 scalars, or one value per level."""

  total: jax.Array
  reconstruction: jax.Array
  contrastive: jax.Array
  quantizer: jax.Array  # mean over levels of codebook + mu * commitment + beta * diversity
  codebook_L: jax.Array
  commitment_L: jax.Array
  diversity_L: jax.Array


def tokenizer_losses(
  config: RQVAEConfig,
  output: RQVAEOutput,
  codebooks_LxKxd: jax.Array,
  x_NxT: jax.Array,
  collaborative_Nxd: jax.Array,
  positives_NxL: jax.Array,
  weight_N: jax.Array | None = None,
) -> TokenizerLosses:
  """All loss terms of one batch; `total` is what training minimises.

  Args:
    config: gives mu (`commitment`), `alpha` and `beta`.
    output: of `RQVAE`, in training mode.
    codebooks_LxKxd: the same parameters that made `output`.
    x_NxT: float32, the text embeddings that were the input of `output`.
    collaborative_Nxd: float32, the batch items' collaborative embeddings, as wide as the latents
      (`letter_jax.collaborative.embeddings.collaborative_rows` makes such rows of embeddings of any width).
    positives_NxL: int32, from `sample_positives`; NO_POSITIVE leaves the item out of that level's diversity.
    weight_N: 0 for padded rows, which count in no term, nor as negatives of others; None: all rows count.

  Returns:
    `TokenizerLosses`. Means are over real rows, so that padding changes nothing.

  Raises:
    InputError: the collaborative rows have a different shape from the latents.
  """
  quantized = output.quantized
  if collaborative_Nxd.shape != quantized.z_Nxd.shape:
    raise InputError(
      f'collaborative rows have shape {list(collaborative_Nxd.shape)}; expected {list(quantized.z_Nxd.shape)}, one for '
      'each item of the batch with latent_dim columns'
    )
  weight_N = jnp.ones(x_NxT.shape[0]) if weight_N is None else (weight_N > 0).astype(jnp.float32)
  reconstruction = _mean(jnp.mean((output.reconstruction_NxT - x_NxT) ** 2, axis=1), weight_N)
  contrastive = _contrastive(quantized.z_Nxd, collaborative_Nxd, weight_N)
  codebook, commitment, diversity = [], [], []
  for level, codebook_Kxd in enumerate(codebooks_LxKxd):
    r_Nxd, q_Nxd = quantized.residuals_LxNxd[level], quantized.vectors_LxNxd[level]
    codebook.append(_mean(jnp.mean((q_Nxd - jax.lax.stop_gradient(r_Nxd)) ** 2, axis=1), weight_N))
    commitment.append(_mean(jnp.mean((jax.lax.stop_gradient(q_Nxd) - r_Nxd) ** 2, axis=1), weight_N))
    diversity.append(_diversity(codebook_Kxd, quantized.codes_NxL[:, level], positives_NxL[:, level], weight_N))
  codebook_L, commitment_L, diversity_L = jnp.stack(codebook), jnp.stack(commitment), jnp.stack(diversity)
  quantizer = jnp.mean(codebook_L + config.commitment * commitment_L + config.beta * diversity_L)
  total = reconstruction + quantizer + config.alpha * contrastive
  return TokenizerLosses(total, reconstruction, contrastive, quantizer, codebook_L, commitment_L, diversity_L)


class CodeClusters(NamedTuple):
  """Clusters of the codes of each codebook, in the form that `sample_positives` draws from; int32.

  Attributes:
    sorted_LxK: the codes, cluster by cluster.
    place_LxK: for each code, its place in `sorted_LxK`.
    first_LxK: for each code, the first place of its cluster in `sorted_LxK`.
    size_LxK: for each code, the number of codes in its cluster.
  """

  sorted_LxK: jax.Array
  place_LxK: jax.Array
  first_LxK: jax.Array
  size_LxK: jax.Array

  @classmethod
  def of(cls, labels_LxK: jax.Array) -> 'CodeClusters':
    """The clusters of int32 labels in 0..K-1, such as `clustering.cluster_codes` gives."""

    def of_level(labels_K: jax.Array) -> 'CodeClusters':
      sorted_K = jnp.argsort(labels_K).astype(jnp.int32)
      place_K = jnp.argsort(sorted_K).astype(jnp.int32)
      size_C = jnp.zeros(len(labels_K), jnp.int32).at[labels_K].add(1)
      return cls(sorted_K, place_K, (jnp.cumsum(size_C) - size_C)[labels_K], size_C[labels_K])

    return jax.vmap(of_level)(labels_LxK)


def clusters_of_codes(key: jax.Array, codebooks_LxKxd: jax.Array, clusters: int) -> CodeClusters:
  """Clusters the codes of every codebook, for `sample_positives`; training does it at the start of each epoch.

  Args:
    key: PRNG key; the same key gives the same clusters.
    codebooks_LxKxd: float32.
    clusters: per codebook; if it is more than K, every code is a cluster (then no code has a positive).
  """
  return CodeClusters.of(cluster_codes(key, codebooks_LxKxd, clusters))


def sample_positives(key: jax.Array, codes_NxL: jax.Array, clusters: CodeClusters) -> jax.Array:
  """For every item and level, a code drawn uniformly from the other codes of its code's cluster.

  Args:
    key: PRNG key.
    codes_NxL: int32 codes of the batch.
    clusters: from `clusters_of_codes`.

  Returns:
    positives_NxL, int32; NO_POSITIVE where the cluster holds no other code.
  """

  def of_level(key: jax.Array, codes_N: jax.Array, clusters: CodeClusters) -> jax.Array:
    size_N, first_N = clusters.size_LxK[codes_N], clusters.first_LxK[codes_N]
    offset_N = jax.random.randint(key, codes_N.shape, 0, jnp.maximum(size_N - 1, 1))
    offset_N += offset_N >= clusters.place_LxK[codes_N] - first_N  # step over the item's own code
    drawn_N = clusters.sorted_LxK[jnp.minimum(first_N + offset_N, len(clusters.sorted_LxK) - 1)]
    return jnp.where(size_N > 1, drawn_N, NO_POSITIVE).astype(jnp.int32)

  keys_L = jax.random.split(key, codes_NxL.shape[1])
  return jax.vmap(of_level, in_axes=(0, 1, 0), out_axes=1)(keys_L, codes_NxL, clusters)


def _mean(values_N: jax.Array, weight_N: jax.Array) -> jax.Array:
  """Mean over the rows that count, 0 if none does. `where` and not a product: padded rows may hold NaN."""
  return jnp.sum(jnp.where(weight_N > 0, values_N, 0.0)) / jnp.maximum(jnp.sum(weight_N), 1.0)


def _contrastive(z_Nxd: jax.Array, collaborative_Nxd: jax.Array, weight_N: jax.Array) -> jax.Array:
  """Cross-entropy of the diagonal of z @ cf^T: raw dot products, from text to collaborative only."""
  logits_NxN = jnp.matmul(z_Nxd, collaborative_Nxd.T, precision=_HIGHEST)
  excluded_N = jnp.where(weight_N > 0, 0.0, _EXCLUDED)
  # The diagonal is computed apart: the gradient of taking it out of the logits would be a scatter into all of them.
  own_N = jnp.sum(z_Nxd * collaborative_Nxd, axis=1)
  return _mean(jax.nn.logsumexp(logits_NxN + excluded_N, axis=1) - own_N, weight_N)


def _diversity(codebook_Kxd: jax.Array, codes_N: jax.Array, positives_N: jax.Array, weight_N: jax.Array) -> jax.Array:
  """Cross-entropy of the positive under the softmax of q . e_k over all codes but the item's own.

  Items with the same code have the same softmax, and q is that code: K softmaxes are enough for any batch.
  """
  logits_KxK = jnp.matmul(codebook_Kxd, codebook_Kxd.T, precision=_HIGHEST)
  own_KxK = jnp.eye(len(codebook_Kxd), dtype=bool)
  log_probs_KxK = jax.nn.log_softmax(jnp.where(own_KxK, _EXCLUDED, logits_KxK), axis=1)
  losses_N = -log_probs_KxK[codes_N, jnp.maximum(positives_N, 0)]
  return _mean(losses_N, weight_N * (positives_N != NO_POSITIVE))
