import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.ops import argmin as extremes


@pytest.mark.parametrize('axis', [0, 1, -1])
def test_the_same_as_numpy_with_ties_and_infinities(axis):
  values = np.random.default_rng(0).integers(-3, 4, (50, 40)).astype(np.float32)
  values[3], values[:, 5], values[7, 7] = np.inf, -np.inf, np.inf
  np.testing.assert_array_equal(jax.jit(extremes.argmin, static_argnums=1)(values, axis), np.argmin(values, axis))
  np.testing.assert_array_equal(jax.jit(extremes.argmax, static_argnums=1)(values, axis), np.argmax(values, axis))


def test_the_place_of_what_is_computed_is_that_of_its_own_rounding():
  # Left to itself XLA computes the values once for each pass; here that would be with other operations around them.
  x_NxK = jax.random.normal(jax.random.key(0), (256, 64))

  def places(x_NxK):
    values = jnp.exp(jnp.sin(x_NxK) * 3) / 7 - jnp.log1p(jnp.abs(x_NxK))
    return extremes.argmin(values, 1), values

  found, values = jax.jit(places)(x_NxK)
  np.testing.assert_array_equal(found, np.argmin(values, axis=1))


def test_nan_gives_a_place_inside():
  assert 0 <= int(extremes.argmin(jnp.full((1, 5), jnp.nan), 1)[0]) < 5
