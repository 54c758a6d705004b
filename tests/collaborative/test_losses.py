"""SASRec's losses against their formulas, for catalogues of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.collaborative import losses
from tests.small_data import relative_error

ITEMS, WIDTH = 23, 6
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(3, 4, WIDTH)), jnp.float32)
TABLE = jnp.asarray(RANDOM.normal(size=(ITEMS, WIDTH)), jnp.float32)
TARGETS = RANDOM.integers(ITEMS, size=(3, 4))
SCORES = np.asarray(X, np.float64) @ np.asarray(TABLE, np.float64).T
TARGET_SCORES = np.take_along_axis(SCORES, TARGETS[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize('block', [ITEMS, 5, 8, ITEMS - 1])
def test_cross_entropy_in_blocks_has_the_values_and_gradients_of_the_formula(monkeypatch, block):
  monkeypatch.setattr(losses, 'BLOCK_ITEMS', block)
  weights = RANDOM.normal(size=TARGETS.shape)
  loss, gradients = jax.jit(
    jax.value_and_grad(lambda x, table: jnp.sum(losses.cross_entropy(x, table, TARGETS) * weights), (0, 1))
  )(X, TABLE)
  probabilities = np.exp(SCORES - np.log(np.exp(SCORES).sum(axis=-1, keepdims=True)))
  assert float(loss) == pytest.approx(np.sum((np.log(np.exp(SCORES).sum(axis=-1)) - TARGET_SCORES) * weights), rel=1e-5)
  of_scores = (probabilities - np.eye(ITEMS)[TARGETS]) * weights[..., None]
  assert relative_error(gradients[0], of_scores @ TABLE) < 1e-5
  assert relative_error(gradients[1], np.einsum('btn,btd->nd', of_scores, X)) < 1e-5


def test_scores_of_a_large_catalogue_are_never_all_in_memory(monkeypatch):
  monkeypatch.setattr(losses, 'BLOCK_ITEMS', 64)
  x, table = jax.ShapeDtypeStruct((128, 8), jnp.float32), jax.ShapeDtypeStruct((6400, 8), jnp.float32)
  loss = lambda x, table: losses.cross_entropy(x, table, jnp.zeros(128, jnp.int32)).sum()
  memory = jax.jit(jax.grad(loss, (0, 1))).lower(x, table).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 128 * 6400 * 4 / 4


COUNTS = RANDOM.integers(50, size=ITEMS)
PROPOSAL = losses.Proposal.of_counts(COUNTS)


def test_a_sample_stands_for_all_items():
  """With the formula for one sample; and over many, the sum that it estimates is that of all items."""
  sampled = jax.jit(lambda key: losses.sampled_softmax(X, TABLE, TARGETS, key, 7, PROPOSAL))
  probability = 0.5 / ITEMS + 0.5 * COUNTS / COUNTS.sum()
  for seed in range(3):
    sample = np.asarray(PROPOSAL.sample(jax.random.key(seed), (3, 7)))[:, None]
    scores = np.take_along_axis(SCORES, np.broadcast_to(sample, (3, 4, 7)), axis=-1)
    of_others = np.where(sample == TARGETS[..., None], 0, np.exp(scores) / (7 * probability[sample]))
    expected = np.log(np.exp(TARGET_SCORES) + of_others.sum(axis=-1)) - TARGET_SCORES
    np.testing.assert_allclose(sampled(jax.random.key(seed)), expected, rtol=1e-5)
  estimates = np.exp(jax.vmap(sampled)(jax.random.split(jax.random.key(9), 4000)) + TARGET_SCORES)
  deviation = estimates.std(axis=0) / 4000**0.5
  assert (np.abs(estimates.mean(axis=0) - np.exp(SCORES).sum(axis=-1)) < 5 * deviation).all()


def test_items_are_drawn_half_by_popularity_and_half_alike():
  for counts in (COUNTS, np.zeros(ITEMS, int)):
    proposal = losses.Proposal.of_counts(counts)
    probability = 0.5 / ITEMS + 0.5 * counts / counts.sum() if counts.any() else np.full(ITEMS, 1 / ITEMS)
    np.testing.assert_allclose(np.exp(proposal.log_probability_N), probability, rtol=1e-5)
    drawn = np.bincount(proposal.sample(jax.random.key(0), (100_000,)), minlength=ITEMS)
    assert (np.abs(drawn - 100_000 * probability) < 5 * np.sqrt(100_000 * probability)).all()


def test_every_item_of_a_large_catalogue_can_be_drawn():
  """Also those that a float32 between 0 and 1 cannot tell apart."""
  items = 2**25
  proposal = losses.Proposal.of_counts(np.full(items, 3))
  drawn = np.asarray(proposal.sample(jax.random.key(0), (200_000,)))
  assert drawn.min() >= 0 and drawn.max() < items
  assert (drawn % 2).mean() == pytest.approx(0.5, abs=0.01)
  assert len(np.unique(drawn)) > 198_000  # 200,000 of 2^25: about 600 repeats


def test_a_sample_of_targets_alone_is_finite():
  proposal = losses.Proposal.of_counts(np.array([3]))
  loss = lambda x: losses.sampled_softmax(x, TABLE[:1], np.zeros((1, 1), int), jax.random.key(0), 3, proposal).sum()
  assert loss(X[:1, :1]) == 0
  assert np.isfinite(jax.grad(loss)(X[:1, :1])).all()


def test_binary_cross_entropy_is_that_of_the_formula():
  drawn = np.asarray(jax.random.randint(jax.random.key(3), TARGETS.shape, 0, ITEMS))
  against = np.take_along_axis(SCORES, drawn[..., None], axis=-1)[..., 0]
  expected = np.log1p(np.exp(-TARGET_SCORES)) + np.log1p(np.exp(against))
  np.testing.assert_allclose(losses.binary_cross_entropy(X, TABLE, TARGETS, jax.random.key(3)), expected, rtol=1e-5)
