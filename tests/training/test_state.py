import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from letter_jax.sharding import on_one_device
from letter_jax.training.state import TrainState, make_step

LAYOUT = on_one_device()
KEY = jax.random.key(5)
OPTIMIZER = optax.adam(0.1)


def squared_error(params, batch, key):
  """Weighted, so that micro-batches count differently; reports the key's first bits."""
  error_B = batch['x'] @ params['kernel'] + params['bias'] - batch['y']
  loss, count = jnp.sum(error_B**2 * batch['weight']), batch['weight'].sum()
  return (
    loss,
    count,
    {
      'absolute': (jnp.sum(jnp.abs(error_B) * batch['weight']), count),
      'noise': (jax.random.uniform(key), jnp.ones(())),
    },
  )


def noisy(params, batch, key):
  loss, count, metrics = squared_error(params, batch, key)
  return loss + jax.random.normal(key) * params['bias'], count, metrics


@pytest.fixture
def batch():
  random = np.random.default_rng(0)
  return {
    'x': random.normal(size=(12, 3)).astype(np.float32),
    'y': random.normal(size=12).astype(np.float32),
    'weight': np.array([1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1], np.float32),
  }


def initial():
  return TrainState.create({'kernel': jnp.ones(3), 'bias': jnp.zeros(())}, OPTIMIZER)


def assert_equal(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_metrics_are_sums_and_counts(batch):
  state, metrics = jax.jit(make_step(squared_error, OPTIMIZER, KEY, LAYOUT))(initial(), batch)
  error_B = batch['x'].sum(axis=1) - batch['y']
  assert state.step == 1 and state.step.dtype == jnp.int32
  assert {name: len(pair) for name, pair in metrics.items()} == dict.fromkeys(
    ('loss', 'absolute', 'noise', 'gradient_norm'), 2
  )
  np.testing.assert_allclose(metrics['loss'], (np.sum(error_B**2 * batch['weight']), 7), rtol=1e-5)
  np.testing.assert_allclose(metrics['absolute'], (np.sum(np.abs(error_B) * batch['weight']), 7), rtol=1e-5)
  slope_B = 2 * error_B * batch['weight'] / 7
  gradient = np.append(slope_B @ batch['x'], slope_B.sum())
  np.testing.assert_allclose(metrics['gradient_norm'], (np.linalg.norm(gradient), 1), rtol=1e-5)


@pytest.mark.parametrize('micro_batches', [2, 3])
def test_accumulation_is_the_whole_batch_at_once(batch, micro_batches):
  split = jax.tree.map(lambda leaf: leaf.reshape(micro_batches, -1, *leaf.shape[1:]), batch)
  whole, expected = jax.jit(make_step(squared_error, OPTIMIZER, KEY, LAYOUT))(initial(), batch)
  state, metrics = jax.jit(make_step(squared_error, OPTIMIZER, KEY, LAYOUT, micro_batches))(initial(), split)
  jax.tree.map(lambda ours, other: np.testing.assert_allclose(ours, other, rtol=1e-6, atol=1e-7), state, whole)
  for name in ('loss', 'absolute', 'gradient_norm'):
    np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-6)


def test_micro_batches_draw_differently(batch):
  split = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch)
  _, metrics = jax.jit(make_step(squared_error, OPTIMIZER, KEY, LAYOUT, 2))(initial(), split)
  key = jax.random.fold_in(KEY, 0)
  draws = [float(jax.random.uniform(jax.random.fold_in(key, index))) for index in range(2)]
  assert abs(draws[0] - draws[1]) > 1e-3
  np.testing.assert_allclose(metrics['noise'], (sum(draws), 2), rtol=1e-6)


def test_randomness_follows_from_the_key_and_the_step_alone(batch):
  step = jax.jit(make_step(noisy, OPTIMIZER, KEY, LAYOUT))
  states, draws = [initial()], []
  for _ in range(4):
    state, metrics = step(states[-1], batch)
    states.append(state)
    draws.append(float(metrics['noise'][0]))
  assert len(set(draws)) == 4
  resumed, metrics = step(states[2], batch)
  assert float(metrics['noise'][0]) == draws[2]
  assert_equal(resumed, states[3])
  other, metrics = jax.jit(make_step(noisy, OPTIMIZER, jax.random.key(6), LAYOUT))(initial(), batch)
  assert float(metrics['noise'][0]) not in draws


@pytest.mark.parametrize('micro_batches', [1, 2])
def test_a_batch_of_padding_changes_nothing(batch, micro_batches):
  batch['weight'] = np.zeros(12, np.float32)
  if micro_batches > 1:
    batch = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batch)
  state, _ = jax.jit(make_step(squared_error, OPTIMIZER, KEY, LAYOUT, micro_batches))(initial(), batch)
  assert_equal(state.params, initial().params)
