import numpy as np
import pytest

from letter_jax.evaluation.catalogue_use import catalogue_use


def test_counts_and_shares():
  items_UxK = np.array([[0, 1, 2], [0, 3, -1], [0, 1, -1]])
  use = catalogue_use(items_UxK, 8)
  assert (use.items, use.coverage) == (4, 0.5)
  assert use.top_share == pytest.approx(3 / 7)  # one item, a hundredth of eight rounded up
  assert catalogue_use(items_UxK, 150).top_share == pytest.approx(5 / 7)  # two items


def test_gini_is_the_mean_difference_of_all_pairs():
  random = np.random.default_rng(0)
  items_UxK = random.integers(0, 20, (50, 10)) ** 2 // 20
  counts_N = np.bincount(items_UxK.ravel(), minlength=30)
  pairs = np.abs(counts_N[:, None] - counts_N[None]).mean()
  assert catalogue_use(items_UxK, 30).gini == pytest.approx(pairs / (2 * counts_N.mean()))


def test_the_extremes():
  assert catalogue_use(np.arange(10).reshape(2, 5), 10).gini == 0
  assert catalogue_use(np.zeros((40, 1), int), 1000).gini == pytest.approx(0.999)
  nothing = catalogue_use(np.full((3, 2), -1), 5)
  assert (nothing.items, nothing.coverage, nothing.top_share, nothing.gini) == (0, 0, 0, 0)
