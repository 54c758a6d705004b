import numpy as np
import pytest

from letter_jax.reporting import bootstrap
from letter_jax.reporting.bootstrap import interval, paired_difference


def hits(users: int, rate: float, seed: int = 0) -> np.ndarray:
  return (np.random.default_rng(seed).random(users) < rate).astype(float)


def test_interval_of_hits_is_that_of_a_binomial():
  gains_U = hits(5000, 0.3)
  mean = gains_U.mean()
  half = 1.96 * np.sqrt(mean * (1 - mean) / len(gains_U))
  low, high = interval(gains_U, seed=1)
  assert (low, high) == (pytest.approx(mean - half, abs=0.15 * half), pytest.approx(mean + half, abs=0.15 * half))


def test_interval_equals_that_of_drawing_users_one_by_one():
  gains_U = np.random.default_rng(0).choice([0, 0.5, 1 / np.log2(3), 1], 400, p=[0.6, 0.2, 0.1, 0.1])
  random = np.random.default_rng(1)
  means_R = gains_U[random.integers(0, 400, (20_000, 400))].mean(axis=1)
  expected = np.quantile(means_R, [0.025, 0.975])
  assert interval(gains_U, seed=2) == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_ninety_five_percent_of_the_intervals_contain_the_true_rate():
  bounds = [interval(hits(600, 0.2, seed), seed) for seed in range(300)]
  assert 0.91 < np.mean([low <= 0.2 <= high for low, high in bounds]) < 0.99


def test_the_seed_determines_the_interval():
  gains_U = hits(300, 0.4)
  assert interval(gains_U, 3) == interval(gains_U, 3)
  assert interval(gains_U, 3) != interval(gains_U, 4)


def test_the_chunk_size_does_not_change_the_interval(monkeypatch):
  gains_U = np.random.default_rng(0).random(200)
  whole = interval(gains_U, 5)
  monkeypatch.setattr(bootstrap, '_ENTRIES_AT_ONCE', 3 * 200)
  assert interval(gains_U, 5) == pytest.approx(whole, abs=1e-15)


def test_paired_interval_is_narrower_than_the_unpaired_for_correlated_gains():
  a_U = hits(3000, 0.4)
  b_U = np.where(hits(3000, 0.05, seed=1) > 0, 1 - a_U, a_U)
  difference, low, high = paired_difference(a_U, b_U, seed=0)
  assert difference == pytest.approx(a_U.mean() - b_U.mean()) and low < difference < high
  # Of independent samples the variances add up.
  apart = np.hypot(np.subtract(*interval(a_U, 0)), np.subtract(*interval(b_U, 0)))
  assert high - low < 0.5 * apart


def test_a_million_users():
  gains_U = hits(1_000_000, 0.1)
  low, high = interval(gains_U, 0)
  assert low < gains_U.mean() < high and high - low < 0.002
