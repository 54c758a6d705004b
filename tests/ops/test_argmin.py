import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.ops.argmin import argmax, argmin


@pytest.mark.parametrize('axis', [0, 1, -1])
def test_the_same_as_numpy_with_ties_and_infinities(axis):
  values = np.random.default_rng(0).integers(-3, 4, (50, 40)).astype(np.float32)
  values[3], values[:, 5], values[7, 7] = np.inf, -np.inf, np.inf
  np.testing.assert_array_equal(jax.jit(argmin, static_argnums=1)(values, axis), np.argmin(values, axis))
  np.testing.assert_array_equal(jax.jit(argmax, static_argnums=1)(values, axis), np.argmax(values, axis))


def test_the_index_is_consistent_with_the_values_as_rounded():
  # Without a barrier XLA would compute the values once for each pass, fused with different operations.
  x_NxK = jax.random.normal(jax.random.key(0), (256, 64))

  def index_and_values(x_NxK):
    values = jnp.exp(jnp.sin(x_NxK) * 3) / 7 - jnp.log1p(jnp.abs(x_NxK))
    return argmin(values, 1), values

  index_N, values = jax.jit(index_and_values)(x_NxK)
  np.testing.assert_array_equal(index_N, np.argmin(values, axis=1))


def test_nan_gives_an_index_in_bounds():
  assert 0 <= int(argmin(jnp.full((1, 5), jnp.nan), 1)[0]) < 5
