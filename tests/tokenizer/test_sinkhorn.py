import jax
import numpy as np
import pytest

from letter_jax.tokenizer.sinkhorn import center_distances, sinkhorn, sinkhorn_codes

plan_of = jax.jit(sinkhorn, static_argnums=(1, 2))
codes_of = jax.jit(sinkhorn_codes, static_argnums=(1, 2))


def reference(centered_BxK, epsilon, iterations=50):
  """The reference's loop, in float64 and out of the log domain."""
  plan_BxK = np.exp(-np.asarray(centered_BxK, np.float64) / epsilon)
  rows, columns = plan_BxK.shape
  for _ in range(iterations):
    plan_BxK /= plan_BxK.sum(axis=1, keepdims=True) * rows
    plan_BxK /= plan_BxK.sum(axis=0, keepdims=True) * columns
  return plan_BxK * rows


def distances(rows, columns, heavy_tails=False, seed=0):
  random = np.random.default_rng(seed)
  draw = (lambda size: random.standard_t(1.2, size=size)) if heavy_tails else random.standard_normal
  return np.sum((draw((rows, 1, 8)) - 0.3 * draw((1, columns, 8))) ** 2, axis=-1).astype(np.float32)


def test_distances_are_centered_like_the_reference():
  given = np.array([[3.0, 5.0], [11.0, 4.0]], np.float32)
  half_range = 4 + 1e-5
  np.testing.assert_allclose(center_distances(given), (given - 7) / half_range, rtol=1e-6)


@pytest.mark.parametrize('iterations', [1, 2, 50])
@pytest.mark.parametrize('heavy_tails', [False, True])
def test_the_plan_is_that_of_float64_at_the_papers_epsilon(iterations, heavy_tails):
  centered_BxK = np.asarray(center_distances(distances(60, 24, heavy_tails)))
  expected_BxK = reference(centered_BxK, 0.003, iterations)
  plan_BxK = np.asarray(plan_of(centered_BxK, 0.003, iterations))
  np.testing.assert_allclose(plan_BxK, expected_BxK, atol=2e-5 * expected_BxK.max())
  np.testing.assert_array_equal(plan_BxK.argmax(axis=1), expected_BxK.argmax(axis=1))


def test_the_plan_stays_that_of_float64_where_the_kernel_is_made_anew():
  # Codes so unlike in reach that plain scales would leave the range of the kernel.
  distances_BxK = distances(60, 24)
  distances_BxK[:, 1:] += 5 * np.random.default_rng(1).random(23).astype(np.float32)
  distances_BxK[:, 3] = distances_BxK.min() / 2
  centered_BxK = np.asarray(center_distances(distances_BxK))
  expected_BxK = reference(centered_BxK, 0.003)
  np.testing.assert_allclose(plan_of(centered_BxK, 0.003, 50), expected_BxK, atol=1e-4 * expected_BxK.max())


def test_distances_of_a_diverged_training_end_too():
  assert codes_of(np.full((60, 24), np.nan, np.float32), 0.003, 50).shape == (60,)
  assert codes_of(np.full((60, 24), np.inf, np.float32), 0.003, 50).shape == (60,)


def test_columns_are_exactly_balanced_where_nearest_codes_collapse():
  distances_BxK = distances(60, 24)
  distances_BxK[:, 3] = distances_BxK.min() / 2
  plan_BxK = plan_of(center_distances(distances_BxK), 0.003, 50)
  np.testing.assert_allclose(np.sum(plan_BxK, axis=0), 60 / 24, rtol=1e-4)
  assert np.bincount(np.argmax(plan_BxK, axis=1), minlength=24).max() < 16


def test_padded_rows_change_nothing():
  padded_BxK = np.concatenate([distances(60, 24), 1e6 * np.ones((9, 24), np.float32)])
  weight_B = np.r_[np.ones(60), np.zeros(9)].astype(np.float32)
  plan_BxK = plan_of(center_distances(padded_BxK, weight_B), 0.003, 50, weight_B)
  expected_BxK = plan_of(center_distances(padded_BxK[:60]), 0.003, 50)
  np.testing.assert_allclose(plan_BxK[:60], expected_BxK, atol=1e-4 * np.max(expected_BxK))
  assert not np.any(plan_BxK[60:])


def test_padding_alone_and_equal_distances_give_numbers():
  equal_BxK = np.ones((4, 3), np.float32)
  np.testing.assert_allclose(plan_of(center_distances(equal_BxK), 0.003, 50), 1 / 3, rtol=1e-5)
  nothing_B = np.zeros(4, np.float32)
  assert np.all(np.isfinite(plan_of(center_distances(distances(4, 3), nothing_B), 0.003, 50, nothing_B)))


def log_odds(centered_BxK, epsilon, iterations=50):
  """Of the entries' shares of their columns, in float64 and nowhere but in the log domain."""
  logits_BxK = -np.asarray(centered_BxK, np.float64) / epsilon
  rows, columns = logits_BxK.shape
  column_K = np.zeros(columns)
  for _ in range(iterations):
    row_B = -np.logaddexp.reduce(logits_BxK + column_K, axis=1)
    column_K = -np.logaddexp.reduce(logits_BxK + row_B[:, None], axis=0)
  logits_BxK = logits_BxK + row_B[:, None]
  others_BxK = [np.logaddexp.reduce(np.delete(logits_BxK, row, axis=0), axis=0) for row in range(rows)]
  return logits_BxK - others_BxK


def test_codes_where_entries_are_equal_in_any_precision():
  # More codes than items: an item may have several columns to itself, and their shares are 1 even in float64.
  most = []
  for seed in range(5):
    centered_BxK = np.asarray(center_distances(distances(2, 24, seed=seed)))
    most.append(np.sum(reference(centered_BxK, 0.003) > (2 / 24) * (1 - 1e-12), axis=1).max())
    np.testing.assert_array_equal(codes_of(centered_BxK, 0.003, 50), log_odds(centered_BxK, 0.003).argmax(axis=1))
  assert max(most) > 1


@pytest.mark.parametrize('rows, columns', [(60, 24), (24, 60), (200, 24)])
def test_codes_are_the_largest_entries_of_the_plan(rows, columns):
  centered_BxK = np.asarray(center_distances(distances(rows, columns)))
  codes_B = codes_of(centered_BxK, 0.05, 50)
  np.testing.assert_array_equal(codes_B, reference(centered_BxK, 0.05).argmax(axis=1))


def test_items_alike_take_their_nearest_code_together():
  distances_BxK = np.repeat(distances(1, 9), 5, axis=0)
  codes_B = codes_of(center_distances(distances_BxK), 0.003, 50)
  np.testing.assert_array_equal(codes_B, distances_BxK.argmin(axis=1))


@pytest.mark.parametrize('real', [180, 20])
def test_codes_of_a_padded_batch_are_those_of_its_rows(real):
  centered_BxK = np.asarray(center_distances(distances(real, 24)))
  padded_BxK = np.concatenate([centered_BxK, np.zeros((200 - real, 24), np.float32)])
  found = codes_of(padded_BxK, 0.003, 50, (np.arange(200) < real).astype(np.float32))
  np.testing.assert_array_equal(found[:real], codes_of(centered_BxK, 0.003, 50))
