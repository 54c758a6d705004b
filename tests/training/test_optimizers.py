import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from letter_jax.configuration import TrainingConfig
from letter_jax.training import optimizers


def rates(total_steps, **settings):
  schedule = optimizers.learning_rate(TrainingConfig(learning_rate=0.8, **settings), total_steps)
  return [float(schedule(step)) for step in range(total_steps + 1)]


def test_warm_up_rises_to_the_peak_and_the_cosine_falls_to_zero():
  values = rates(20, warmup_fraction=0.2)
  assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
  cosine = [0.8 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(17)]
  assert values[4:] == pytest.approx(cosine, abs=1e-7)
  assert values[12] == pytest.approx(0.4) and values[20] == pytest.approx(0, abs=1e-7)


def test_other_schedules():
  assert rates(10, warmup_fraction=0.2, schedule='constant') == pytest.approx([0.4] + [0.8] * 10)
  assert rates(10, warmup_fraction=0.0, schedule='constant') == pytest.approx([0.8] * 11)
  assert rates(10, warmup_fraction=0.0)[:2] == pytest.approx([0.8, 0.4 * (1 + math.cos(math.pi / 10))])
  assert rates(10, warmup_fraction=0.1)[:2] == pytest.approx([0.8, 0.8])
  assert rates(1, warmup_fraction=0.01) == pytest.approx([0.8, 0], abs=1e-7)
  assert rates(3, warmup_fraction=0.9)[:3] == pytest.approx([0.8 / 3, 1.6 / 3, 0.8])


PARAMS = {'kernel': jnp.full((2, 3), 2.0), 'scale': jnp.full(3, 2.0), 'table': jnp.full((2, 2, 2), 2.0)}


def updates(gradients, **settings):
  config = TrainingConfig(learning_rate=0.5, warmup_fraction=0.0, **settings)

  @jax.jit
  def run(gradients):
    optimizer = optimizers.adamw(config, 100)
    return optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[0]

  return jax.tree.map(np.asarray, run(gradients))


def test_weight_decay_reaches_matrices_alone():
  zeros = jax.tree.map(jnp.zeros_like, PARAMS)
  found = updates(zeros, weight_decay=0.1)
  np.testing.assert_allclose(found['kernel'], -0.5 * 0.1 * 2, rtol=1e-6)
  np.testing.assert_allclose(found['table'], -0.5 * 0.1 * 2, rtol=1e-6)
  np.testing.assert_array_equal(found['scale'], 0)
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates(zeros, weight_decay=0.0)))


def test_relative_updates_are_a_share_of_each_parameters_root_mean_square():
  gradients = jax.tree.map(jnp.ones_like, PARAMS)
  small = {**PARAMS, 'kernel': jnp.full((2, 3), 0.02)}
  small['scale'] = jnp.zeros(3)
  settings = dict(learning_rate=0.5, warmup_fraction=0.0, weight_decay=0.1)
  absolute, relative = (
    optimizers.adamw(TrainingConfig(relative_updates=choice, **settings), 100) for choice in (False, True)
  )
  found = absolute.update(gradients, absolute.init(small), small)[0]
  np.testing.assert_allclose(found['kernel'], -0.5 * (1 + 0.1 * 0.02), rtol=1e-5)
  found = relative.update(gradients, relative.init(small), small)[0]
  np.testing.assert_allclose(found['kernel'], -0.5 * (0.02 + 0.1 * 0.02), rtol=1e-5)
  np.testing.assert_allclose(found['table'], -0.5 * (2 + 0.1 * 2), rtol=1e-5)
  np.testing.assert_allclose(found['scale'], -0.5 * 1e-3, rtol=1e-5)  # zeros have to get away from zero


@pytest.mark.parametrize('clip', [0.0, 1.0])
def test_otherwise_it_is_optax_adamw_state_and_all(clip):
  config = TrainingConfig(learning_rate=0.5, gradient_clip=clip)
  matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
  expected = optax.adamw(optimizers.learning_rate(config, 100), weight_decay=config.weight_decay, mask=matrices)
  if clip:
    expected = optax.chain(optax.clip_by_global_norm(clip), expected)
  ours = optimizers.adamw(config, 100)
  our_state, state = ours.init(PARAMS), expected.init(PARAMS)
  assert jax.tree.structure(our_state) == jax.tree.structure(state)
  for step in range(3):
    gradients = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf + step), PARAMS)
    our_updates, our_state = ours.update(gradients, our_state, PARAMS)
    updates, state = expected.update(gradients, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, (our_updates, our_state), (updates, state))


def test_clipping_bounds_the_global_norm_and_is_off_by_default():
  # Adam divides by the gradient's size, but not where its epsilon is larger: there clipping shows.
  gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3e-8), PARAMS)
  norm = 3e-8 * math.sqrt(6 + 3 + 8)
  adam = lambda gradient: -0.5 * gradient / (gradient + 1e-8)
  free, loose, tight = (
    updates(gradients, weight_decay=0.0, **settings)
    for settings in ({}, {'gradient_clip': 2 * norm}, {'gradient_clip': norm / 4})
  )
  for found, expected in ((free, adam(3e-8)), (loose, adam(3e-8)), (tight, adam(3e-8 / 4))):
    for leaf in jax.tree.leaves(found):
      np.testing.assert_allclose(leaf, expected, rtol=1e-4)
