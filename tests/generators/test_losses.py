import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from letter_jax.generators.losses import ranking_guided_loss


@pytest.fixture(scope='module')
def batch():
  random = np.random.default_rng(0)
  return (random.normal(0, 3, (4, 3, 11)).astype(np.float32), random.integers(0, 11, (4, 3)).astype(np.int32),
          (random.random((4, 3)) < 0.6).astype(np.float32))


@jax.jit
def loss_count_and_gradient(logits, targets, weights, temperature):
  function = jax.value_and_grad(ranking_guided_loss, has_aux=True)
  (total, count), gradient = function(logits, targets, weights, temperature)
  return total, count, gradient


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_is_the_cross_entropy_of_the_logits_over_tau(batch, temperature):
  logits, targets, weights = batch

  @jax.jit
  @jax.value_and_grad
  def expected(logits):
    return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits / temperature, targets) * weights)

  total, count, gradient = loss_count_and_gradient(logits, targets, weights, temperature)
  assert total.dtype == count.dtype == jnp.float32 and total.shape == count.shape == ()
  assert float(count) == weights.sum() and 0 < float(count) < weights.size
  expected_total, expected_gradient = expected(logits)
  assert float(total) == pytest.approx(float(expected_total), rel=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_tokens_without_weight_count_nothing(batch):
  logits, targets, weights = batch
  others = np.where((weights == 0)[..., None], logits[::-1] * 5 + 1, logits)
  total, count, gradient = loss_count_and_gradient(logits, targets, weights, 0.7)
  assert float(loss_count_and_gradient(others, targets, weights, 0.7)[0]) == float(total) != 0
  assert (np.asarray(gradient)[weights == 0] == 0).all() and (np.asarray(gradient)[weights == 1] != 0).all()
  total, count, gradient = loss_count_and_gradient(logits, targets, np.zeros_like(weights), 0.7)
  assert float(total) == float(count) == 0 and (np.asarray(gradient) == 0).all()


def test_a_small_tau_weighs_hard_negatives_more():
  logits = np.array([[2.0, 1.9, -3.0]], np.float32)
  push = {tau: np.asarray(loss_count_and_gradient(logits, np.array([0]), np.ones(1, np.float32), tau)[2])[0]
          for tau in (1.0, 0.5)}
  hard, easy = 1, 2
  assert push[0.5][hard] / push[0.5][easy] > 10 * push[1.0][hard] / push[1.0][easy]


def test_bfloat16_logits_are_summed_in_float32():
  logits = jnp.zeros((3000, 8), jnp.bfloat16)
  total, count = jax.jit(ranking_guided_loss)(logits, np.zeros(3000, np.int32), np.ones(3000, np.float32), 1.0)
  assert total.dtype == jnp.float32 and float(count) == 3000
  assert float(total) == pytest.approx(3000 * np.log(8), rel=1e-5)
