"""Losses of a model that scores items by dot products, for catalogues of any size.

Shapes: [...] positions, B rows, T positions of a row, D width, N items, S sampled items, G blocks of K items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from letter_jax.ops.rounding import round_up

# Scores of more items than this are never all in memory: 8,192 positions times as many items are half a gigabyte.
BLOCK_ITEMS = 16_384


class Proposal(NamedTuple):
  """The distribution that items are sampled from: half uniform, for items that are hardly ever a target; half by
  popularity, as it is popular items that compete.

  Attributes:
    cumulative_N: int32, cumulative interactions of the items: exact, as float32 would never draw some of 10^7 items.
    log_probability_N: float32.
  """

  cumulative_N: jax.Array | np.ndarray
  log_probability_N: jax.Array | np.ndarray

  @classmethod
  def of_counts(cls, counts_N: np.ndarray) -> 'Proposal':
    """The distribution for int64 `counts_N`, the interactions of each item; without any, all uniform."""
    while counts_N.sum() > np.iinfo(np.int32).max:
      counts_N = counts_N // 2
    uniform, total = 1 / len(counts_N), counts_N.sum()
    probability_N = 0.5 * uniform + 0.5 * (counts_N / total if total else uniform)
    return cls(np.cumsum(counts_N).astype(np.int32), np.log(probability_N).astype(np.float32))

  def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """int32 `shape`, items drawn independently."""
    coin_key, uniform_key, popular_key = jax.random.split(key, 3)
    total = jnp.asarray(self.cumulative_N)[-1]
    uniform = jax.random.randint(uniform_key, shape, 0, len(self.cumulative_N))
    interaction = jax.random.randint(popular_key, shape, 0, jnp.maximum(total, 1))
    popular = jnp.searchsorted(self.cumulative_N, interaction, side='right')
    return jnp.where(jax.random.bernoulli(coin_key, 0.5, shape) & (total > 0), popular, uniform)


def cross_entropy(x: jax.Array, item_embeddings_NxD: jax.Array, targets: jax.Array) -> jax.Array:
  """The negative log-likelihood of each target under the softmax over all items, float32 [...].

  A large catalogue is gone through in blocks of `BLOCK_ITEMS`, forward and backward, so that memory grows with the
  block and not with N.

  Args:
    x: float32 [..., D], states.
    item_embeddings_NxD: float32, of all items.
    targets: int32 [...], items.
  """
  if len(item_embeddings_NxD) <= BLOCK_ITEMS:
    logits = x @ item_embeddings_NxD.T
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - target
  return _logsumexp_of_blocks(x, item_embeddings_NxD) - _logits(x, item_embeddings_NxD, targets)


def sampled_softmax(
  x_BxTxD: jax.Array,
  item_embeddings_NxD: jax.Array,
  targets_BxT: jax.Array,
  key: jax.Array,
  negatives: int,
  proposal: Proposal,
) -> jax.Array:
  """`cross_entropy` with the sum over the other items estimated from a sample, float32 [B, T].

  The positions of a row share their sample, so that the scores are matrix products. A sampled item of probability q
  stands for 1 / (S q) items (the logQ correction, Bengio and Senecal 2008); the target, which is always in the sum,
  stands for itself, and where it is in the sample it is not counted again.

  Args:
    x_BxTxD, item_embeddings_NxD, targets_BxT: as for `cross_entropy`.
    key: of the samples.
    negatives: S, static.
    proposal: what the sample is drawn from.
  """
  sample_BxS = proposal.sample(key, (len(x_BxTxD), negatives))
  stands_for_BxS = -jnp.log(negatives) - jnp.asarray(proposal.log_probability_N)[sample_BxS]
  logits_BxTxS = jnp.einsum('btd,bsd->bts', x_BxTxD, item_embeddings_NxD[sample_BxS]) + stands_for_BxS[:, None]
  logits_BxTxS = jnp.where(sample_BxS[:, None] == targets_BxT[..., None], -jnp.inf, logits_BxTxS)
  target_BxT = _logits(x_BxTxD, item_embeddings_NxD, targets_BxT)
  return jnp.logaddexp(jax.nn.logsumexp(logits_BxTxS, axis=-1), target_BxT) - target_BxT


def binary_cross_entropy(x: jax.Array, item_embeddings_NxD: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
  """SASRec's own loss: the target against one item drawn uniformly (Kang and McAuley 2018, equation 7).

  Args:
    x, item_embeddings_NxD, targets: as for `cross_entropy`.
    key: of the drawn items.

  Returns:
    float32 [...].
  """
  drawn = jax.random.randint(key, targets.shape, 0, len(item_embeddings_NxD))
  score = lambda items: jnp.sum(x * item_embeddings_NxD[items], axis=-1)
  return jax.nn.softplus(-score(targets)) + jax.nn.softplus(score(drawn))


def _logits(x: jax.Array, item_embeddings_NxD: jax.Array, items: jax.Array) -> jax.Array:
  """The score of one item at each position, float32 [...]; a product that is rounded as those of the others are."""
  return jnp.einsum('...d,...d->...', x, item_embeddings_NxD[items])


def _logsumexp_of_blocks(x: jax.Array, item_embeddings_NxD: jax.Array) -> jax.Array:
  """log sum exp over all items of their scores at each position, float32 [...]."""
  items, width = item_embeddings_NxD.shape
  padded = round_up(items, BLOCK_ITEMS)
  # Every G-th item is in a block, so that each is spread over the devices that share the rows of the table.
  blocks_KxGxD = jnp.pad(item_embeddings_NxD, ((0, padded - items), (0, 0))).reshape(BLOCK_ITEMS, -1, width)
  exists_KxG = (jnp.arange(padded) < items).reshape(BLOCK_ITEMS, -1)

  @jax.checkpoint  # the backward pass computes a block's scores again
  def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    embeddings_KxD, exists_K = block
    scores = jnp.where(exists_K, x @ embeddings_KxD.T, -jnp.inf)
    return jnp.logaddexp(total, jax.nn.logsumexp(scores, axis=-1)), None

  nothing = jnp.full(x.shape[:-1], -jnp.inf)
  return jax.lax.scan(add, nothing, (blocks_KxGxD.swapaxes(0, 1), exists_KxG.T))[0]
