"""Ranks of users as the metrics count them."""

import numpy as np
import pytest

from letter_jax.evaluation import metrics, ranks
from letter_jax.system.errors import InputError

RANKS_3xU = np.array([[0, 3, 9, 12, 0, 18, 30], [1, 1, 1, 4, 3, 5, 1], [1, 1, 1, 1, 1, 1, 0]], np.int32)


def test_gains_are_those_of_the_metrics():
  ahead_U, group_U, found_U = RANKS_3xU
  expected = metrics.summarize(metrics.expected_metrics(ahead_U, group_U, found_U > 0, np.ones(7)))
  for name, value in expected.items():
    assert ranks.gains(RANKS_3xU, name).mean() == pytest.approx(value, rel=1e-6)
  assert ranks.gains(RANKS_3xU, 'recall@20').tolist() == [1, 1, 1, 1, 1, 2 / 5, 0]
  assert ranks.gains(RANKS_3xU, 'ndcg@5')[1] == pytest.approx(1 / np.log2(5))


@pytest.mark.parametrize('seed', range(3))
def test_gains_of_random_ranks_are_those_of_the_metrics(seed):
  random = np.random.default_rng(seed)
  ranks_3xU = np.stack([random.integers(0, 40, 500), random.integers(1, 60, 500), random.random(500) < 0.8])
  ranks_3xU = ranks_3xU.astype(np.int32)
  for user in range(0, 500, 25):
    ahead, group, found = ranks_3xU[:, [user]]
    sums = metrics.expected_metrics(ahead, group, found > 0, np.ones(1))
    for name, (total, _) in sums.items():
      assert ranks.gains(ranks_3xU, name)[user] == pytest.approx(float(total), rel=1e-6, abs=1e-7)
  sums = metrics.expected_metrics(ranks_3xU[0], ranks_3xU[1], ranks_3xU[2] > 0, np.ones(500))
  for name, value in metrics.summarize(sums).items():
    assert ranks.gains(ranks_3xU, name).mean() == pytest.approx(value, rel=1e-5)


def test_files_of_ranks(tmp_path):
  path = tmp_path / 'ranks.npz'
  ranks.write(path, {'generator': RANKS_3xU, 'popularity': RANKS_3xU[:, :3]})
  restored = ranks.read(path)
  np.testing.assert_array_equal(restored['generator'], RANKS_3xU)
  assert list(restored) == ['generator', 'popularity'] and restored['popularity'].dtype == np.int32
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(InputError, match='ranks.npz cannot be read'):
    ranks.read(path)
  np.savez(path, generator=RANKS_3xU[:2])
  with pytest.raises(InputError, match='arrays that are not'):
    ranks.read(path)
  with pytest.raises(InputError, match='expected the ranks that the stage evaluate writes'):
    ranks.read(tmp_path / 'nowhere.npz')
