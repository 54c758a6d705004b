import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from letter_jax.generators.losses import catalogue_loss, ranking_guided_loss
from letter_jax.semantic_ids import item_trie
from letter_jax.semantic_ids.item_trie import ItemTrie
from letter_jax.system.errors import InputError


@pytest.fixture(scope='module')
def batch():
  random = np.random.default_rng(0)
  return (
    random.normal(0, 3, (4, 3, 11)).astype(np.float32),
    random.integers(0, 11, (4, 3)).astype(np.int32),
    (random.random((4, 3)) < 0.6).astype(np.float32),
  )


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
  push = {
    tau: np.asarray(loss_count_and_gradient(logits, np.array([0]), np.ones(1, np.float32), tau)[2])[0]
    for tau in (1.0, 0.5)
  }
  hard, easy = 1, 2
  assert push[0.5][hard] / push[0.5][easy] > 10 * push[1.0][hard] / push[1.0][easy]


def test_bfloat16_logits_are_summed_in_float32():
  logits = jnp.zeros((3000, 8), jnp.bfloat16)
  total, count = jax.jit(ranking_guided_loss)(logits, np.zeros(3000, np.int32), np.ones(3000, np.float32), 1.0)
  assert total.dtype == jnp.float32 and float(count) == 3000
  assert float(total) == pytest.approx(3000 * np.log(8), rel=1e-5)


CODES_NxL = np.array([[0, 2, 1], [0, 2, 3], [0, 1, 1], [3, 0, 0], [0, 2, 1]], np.int32)  # the last shares an ID
TRIE = ItemTrie.build(CODES_NxL)
NODES_NxL = item_trie.nodes_of_items(TRIE)


@functools.partial(jax.jit, static_argnums=2)
def catalogue_loss_and_gradient(logits_LxBxSxK, items_BxS, temperature):
  loss = lambda logits: catalogue_loss(
    logits, items_BxS, jnp.asarray(CODES_NxL), jnp.asarray(NODES_NxL), TRIE, temperature
  )
  (total, count), gradient = jax.value_and_grad(loss, has_aux=True)(logits_LxBxSxK)
  return total, count, gradient


def legal_codes(item, level):
  row = CODES_NxL[item]
  return sorted({other[level] for other in CODES_NxL if (other[:level] == row[:level]).all()})


@pytest.mark.parametrize('temperature', [1.0, 0.7])
def test_the_catalogue_loss_is_the_cross_entropy_among_the_codes_that_continue_an_item(temperature):
  logits = np.random.default_rng(1).normal(0, 3, (3, 1, 5, 4)).astype(np.float32)
  total, count, gradient = catalogue_loss_and_gradient(logits, np.arange(5)[None], temperature)
  expected, expected_gradient = 0.0, np.zeros_like(logits)
  for item in range(5):
    for level in range(3):
      codes, target = legal_codes(item, level), CODES_NxL[item, level]
      scaled = np.exp(logits[level, 0, item, codes].astype(np.float64) / temperature)
      expected -= np.log(np.exp(logits[level, 0, item, target] / temperature) / scaled.sum())
      expected_gradient[level, 0, item, codes] = scaled / scaled.sum() / temperature
      expected_gradient[level, 0, item, target] -= 1 / temperature
  assert total.dtype == count.dtype == jnp.float32 and total.shape == count.shape == ()
  assert float(count) == 15 and float(total) == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_slots_without_an_item_count_nothing_in_the_catalogue_loss():
  logits = np.random.default_rng(2).normal(0, 3, (3, 2, 2, 4)).astype(np.float32)
  total, count, gradient = catalogue_loss_and_gradient(logits, np.array([[3, -1], [-1, -1]]), 1.0)
  alone, _, _ = catalogue_loss_and_gradient(logits[:, :1, :1], np.array([[3]]), 1.0)
  assert float(count) == 3 and float(total) == pytest.approx(float(alone), rel=1e-6) and float(alone) > 0
  assert (np.asarray(gradient)[:, [0, 1, 1], [1, 0, 1]] == 0).all()


@pytest.mark.parametrize('loud', [1e4, np.inf, -np.inf, np.nan])
def test_what_a_model_says_of_ids_that_do_not_exist_costs_nothing(loud):
  logits = np.random.default_rng(3).normal(0, 3, (3, 1, 5, 4)).astype(np.float32)
  louder = logits.copy()
  for item in range(5):
    for level in range(3):
      louder[level, 0, item, np.setdiff1d(np.arange(4), legal_codes(item, level))] = loud
  items = np.arange(5)[None]
  (total, _, gradient), (louder_total, _, louder_gradient) = (
    catalogue_loss_and_gradient(each, items, 1.0) for each in (logits, louder)
  )
  assert float(louder_total) == float(total)
  np.testing.assert_array_equal(louder_gradient, gradient)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_a_temperature_that_is_not_positive_is_refused(batch, temperature):
  with pytest.raises(InputError, match=f'temperature is {temperature}; expected a number above 0'):
    ranking_guided_loss(*batch, temperature)


def test_shapes_that_do_not_belong_together_are_refused(batch):
  """They would be broadcast."""
  logits, targets, weights = batch
  with pytest.raises(
    InputError, match=r'the shapes are \[4, 3, 11\], \[1, 3\], \[4, 3\]; expected targets and weights'
  ):
    ranking_guided_loss(logits, targets[:1], weights, 1.0)
  levels = np.zeros((3, 2, 2, 4), np.float32)
  with pytest.raises(InputError, match='expected logits .* of 3 levels for items'):
    catalogue_loss_and_gradient(levels, np.zeros((1, 2), int), 1.0)
  with pytest.raises(InputError, match='expected logits .* of 3 levels for items'):
    catalogue_loss_and_gradient(levels[:2], np.zeros((2, 2), int), 1.0)
