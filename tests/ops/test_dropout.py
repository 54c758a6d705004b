import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.ops.dropout import Dropout, hashed_dropout, keep_mask

SHAPE = (64, 8, 100)
mask = jax.jit(keep_mask, static_argnums=(0, 1))
dropped = jax.jit(hashed_dropout, static_argnums=1)


def seed(number):
  return jnp.uint32(number)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(rate):
  for number in (0, 1, 0xFFFFFFFF):
    keep = np.asarray(mask(SHAPE, rate, seed(number)))
    # Five standard deviations; in every row and column, too.
    for axes, count in ((None, keep.size), ((1, 2), 800), ((0, 1), 512)):
      share = 1 - keep.mean(axis=axes)
      assert np.abs(share - rate).max() < 5 * np.sqrt(rate * (1 - rate) / count)


def correlation(one, other):
  return abs(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_neighbours_and_seeds_are_independent():
  keep = np.asarray(mask(SHAPE, 0.5, seed(12345)))
  bound = 5 / np.sqrt(keep.size)
  for axis in range(3):
    for distance in (1, 2, 4):
      size = keep.shape[axis] - distance
      assert correlation(keep.take(range(size), axis), keep.take(range(distance, size + distance), axis)) < 1.2 * bound
  for number in (12344, 12346, 12345 ^ (1 << 31), 12345 << 1, 0):
    assert correlation(keep, np.asarray(mask(SHAPE, 0.5, seed(number)))) < bound


def test_kept_elements_are_scaled_so_that_the_expectation_stays():
  x = jnp.asarray(np.random.default_rng(0).normal(3, 1, SHAPE), jnp.float32)
  keep = np.asarray(mask(SHAPE, 0.3, seed(9)))
  result = np.asarray(dropped(x, 0.3, seed(9)))
  np.testing.assert_allclose(result, np.where(keep, x / 0.7, 0), rtol=1e-6)
  assert result.mean() == pytest.approx(float(x.mean()), rel=0.02)
  assert dropped(x.astype(jnp.bfloat16), 0.3, seed(9)).dtype == jnp.bfloat16


def test_the_gradient_has_the_same_mask():
  x, weights = (jnp.asarray(np.random.default_rng(n).normal(size=SHAPE), jnp.float32) for n in (1, 2))
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(hashed_dropout(x, 0.3, seed(9)) * weights)))(x)
  np.testing.assert_allclose(gradient, np.where(mask(SHAPE, 0.3, seed(9)), weights / 0.7, 0), rtol=1e-6)


def test_the_mask_is_one_for_the_whole_array_and_not_one_a_row():
  keep = np.asarray(mask(SHAPE, 0.5, seed(3)))
  assert len({row.tobytes() for row in keep.reshape(-1, SHAPE[-1])}) == 64 * 8


def test_the_layer():
  layer, x = Dropout(0.4), jnp.ones((20, 30))
  apply = lambda key, deterministic=False: np.asarray(
    layer.apply({}, x, deterministic, rngs={'dropout': jax.random.key(key)})
  )
  np.testing.assert_array_equal(apply(0), apply(0))
  assert (apply(0) != apply(1)).mean() > 0.3
  assert set(np.unique(apply(0)).tolist()) == {0, np.float32(1 / 0.6)}
  np.testing.assert_array_equal(apply(0, deterministic=True), x)
  np.testing.assert_array_equal(Dropout(0.0).apply({}, x, False), x)
