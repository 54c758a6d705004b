"""Dense layers against plain products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.ops.dense import dense


@pytest.mark.parametrize('inputs, outputs', [(24, 3), (3, 24), (5, 5)])
def test_dense_is_a_matrix_product_with_its_gradients(inputs, outputs):
  random = np.random.default_rng(3)
  x, kernel, weights = (
    jnp.asarray(random.normal(size=shape), jnp.float32)
    for shape in ((2, 7, inputs), (inputs, outputs), (2, 7, outputs))
  )
  np.testing.assert_allclose(dense(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)
  gradients = jax.jit(
    lambda product: jax.grad(lambda *args: jnp.sum(product(*args) * weights), (0, 1))(x, kernel), static_argnums=0
  )
  ours, expected = gradients(dense), gradients(jnp.matmul)
  for one, other in zip(ours, expected):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
