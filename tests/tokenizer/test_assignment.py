import time

import numpy as np
import pytest

from letter_jax.configuration import RQVAEConfig
from letter_jax.system.errors import InputError
from letter_jax.tokenizer import assignment
from letter_jax.tokenizer.assignment import assign_semantic_ids, nearest_codes
from letter_jax.tokenizer.quantizer import quantize

CONFIG = RQVAEConfig()


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def distinct(codes_NxL):
  return len(np.unique(codes_NxL, axis=0))


def squared_error(latent_Nxd, codebooks_LxKxd, codes_NxL):
  z_Nxd = sum(codebook_Kxd[codes_NxL[:, level]] for level, codebook_Kxd in enumerate(codebooks_LxKxd))
  return np.sum((latent_Nxd - z_Nxd) ** 2, axis=1)


def test_nearest_codes_batch_by_batch(monkeypatch):
  monkeypatch.setattr(assignment, '_BATCH_ROWS', 8)
  latent_Nxd, codebooks_LxKxd = normal(21, 4), normal(3, 6, 4, seed=1)
  codes_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd)
  assert codes_NxL.dtype == np.int32
  np.testing.assert_array_equal(codes_NxL, quantize(latent_Nxd, codebooks_LxKxd).codes_NxL)


@pytest.mark.parametrize(
  'latent_Nxd, codebooks_LxKxd',
  [
    (normal(16, 4), normal(4, 2, 4, seed=1)),
    (np.ones((15, 4), np.float32), normal(4, 2, 4, seed=1)),
    (normal(12, 4), normal(1, 12, 4, seed=1)),
    (np.ones((12, 4), np.float32), normal(1, 12, 4, seed=1)),
    (np.repeat(normal(3, 4), 5, axis=0), normal(4, 2, 4, seed=1)),
    (np.ones((16, 4), np.float32), np.ones((4, 2, 4), np.float32)),
    (normal(1, 4), normal(4, 2, 4, seed=1)),
  ],
  ids=['every ID taken', 'all alike', 'one level', 'one level, all alike', 'three kinds', 'equal codes', 'one item'],
)
def test_no_two_items_alike_whatever_the_catalogue(latent_Nxd, codebooks_LxKxd):
  codes_NxL, report = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, 'resolve')
  levels, codes, _ = codebooks_LxKxd.shape
  assert codes_NxL.dtype == np.int32 and codes_NxL.shape == (len(latent_Nxd), levels)
  assert codes_NxL.min() >= 0 and codes_NxL.max() < codes
  assert distinct(codes_NxL) == len(latent_Nxd) and report['colliding_after'] == 0
  again, _ = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, 'resolve')
  np.testing.assert_array_equal(codes_NxL, again)


def test_only_colliding_items_move_and_each_to_the_next_free_code():
  # Level 1 is one dimension, level 2 the other; the last three items share code (1, 2), and (1, 3) is taken.
  codebooks_LxKxd = np.zeros((2, 4, 2), np.float32)
  codebooks_LxKxd[0, :, 0], codebooks_LxKxd[1, :, 1] = [0, 10, 20, 30], [0, 1, 2, 3]
  latent_Nxd = np.array([[0, 1], [10, 3], [10, 2.1], [10, 1.9], [10, 2]], np.float32)
  codes_NxL, report = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, 'resolve')
  # The second of the three is nearest to 1, the first to 3, which is taken; the last has the most to lose and stays.
  np.testing.assert_array_equal(codes_NxL, [[0, 1], [1, 3], [1, 0], [1, 1], [1, 2]])
  assert (report['items'], report['collided'], report['moved'], report['moved_at_level']) == (5, 3, 2, [0, 2])
  increases = 2.1**2 - 0.1**2, 0.9**2 - 0.1**2
  np.testing.assert_allclose(report['error_increase_mean'], np.mean(increases), rtol=1e-4)
  np.testing.assert_allclose(report['error_increase_max'], increases[0], rtol=1e-4)


def test_items_leave_a_prefix_only_when_it_is_full():
  codebooks_LxKxd = np.zeros((3, 3, 3), np.float32)
  for level in range(3):
    codebooks_LxKxd[level, :, level] = [0, 1, 2]
  # Eleven items at one place: nine fill the first code's whole subtree, two go to the next first code.
  codes_NxL, report = assign_semantic_ids(np.zeros((11, 3), np.float32), codebooks_LxKxd, CONFIG, 'resolve')
  np.testing.assert_array_equal(np.bincount(codes_NxL[:, 0]), [9, 2])
  assert report['moved_at_level'] == [2, 6, 2] and report['moved'] == 10
  assert sorted(map(tuple, codes_NxL[codes_NxL[:, 0] == 1].tolist())) == [(1, 0, 0), (1, 0, 1)]


def test_the_report_counts_against_nearest_codes():
  latent_Nxd, codebooks_LxKxd = normal(200, 4), normal(3, 8, 4, seed=1)
  nearest_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd)
  for collisions in ('resolve', 'reference'):
    codes_NxL, report = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, collisions)
    moved_N = np.any(codes_NxL != nearest_NxL, axis=1)
    increase_N = (
      squared_error(latent_Nxd, codebooks_LxKxd, codes_NxL) - squared_error(latent_Nxd, codebooks_LxKxd, nearest_NxL)
    )[moved_N]
    _, group_N, size_G = np.unique(nearest_NxL, axis=0, return_inverse=True, return_counts=True)
    alone_N = size_G[group_N.ravel()] == 1
    _, prefix_N, size_P = np.unique(nearest_NxL[:, :2], axis=0, return_inverse=True, return_counts=True)
    assert report['collided'] == np.sum(~alone_N) > 0
    assert report['moved'] == moved_N.sum() == sum(report['moved_at_level']) > 0
    np.testing.assert_allclose(report['error_increase_mean'], increase_N.mean(), rtol=1e-4)
    np.testing.assert_allclose(report['error_increase_max'], increase_N.max(), rtol=1e-4)
    if collisions == 'resolve':  # who has an ID alone moves at most when the prefix has more items than codes
      assert not np.any(moved_N & alone_N & (size_P[prefix_N.ravel()] <= 8))


def test_too_many_items_for_the_codes():
  with pytest.raises(InputError, match=r'17 items .* 4 levels of 2 codes give 16'):
    assign_semantic_ids(normal(17, 4), normal(4, 2, 4), CONFIG, 'resolve')


def test_reference_moves_the_last_level_of_colliding_items_and_keeps_what_is_left():
  kinds_Nxd, codebooks_LxKxd = normal(30, 4), normal(3, 8, 4, seed=1)
  latent_Nxd = np.concatenate([kinds_Nxd, kinds_Nxd[:4], normal(60, 4, seed=2)])
  nearest_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd)
  codes_NxL, report = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, CONFIG, 'reference')
  np.testing.assert_array_equal(codes_NxL[:, :-1], nearest_NxL[:, :-1])
  # Items with equal latents cannot be told apart by Sinkhorn.
  np.testing.assert_array_equal(codes_NxL[30:34], codes_NxL[:4])
  assert 8 <= report['colliding_after'] < report['collided']


def test_reference_rounds_are_those_of_a_loop_over_groups():
  latent_Nxd, codebooks_LxKxd = normal(80, 4), normal(2, 6, 4, seed=1)
  config = RQVAEConfig(sinkhorn_epsilon=0.05)
  codes_NxL, _ = assign_semantic_ids(latent_Nxd, codebooks_LxKxd, config, 'reference')
  expected_NxL = nearest_codes(latent_Nxd, codebooks_LxKxd)
  residual_Nxd = latent_Nxd - codebooks_LxKxd[0][expected_NxL[:, 0]]
  distances_NxK = np.sum((residual_Nxd[:, None] - codebooks_LxKxd[1]) ** 2, axis=-1).astype(np.float64)
  for _ in range(20):
    _, group_N = np.unique(expected_NxL, axis=0, return_inverse=True)
    for group in range(group_N.max() + 1):
      members = np.flatnonzero(group_N.ravel() == group)
      if len(members) > 1:
        plan = distances_NxK[members]
        middle = (plan.max() + plan.min()) / 2
        plan = np.exp(-(plan - middle) / (plan.max() - middle + 1e-5) / 0.05)
        for _ in range(50):
          plan /= plan.sum(axis=1, keepdims=True)
          plan /= plan.sum(axis=0, keepdims=True)
        expected_NxL[members, 1] = plan.argmax(axis=1)
  np.testing.assert_array_equal(codes_NxL, expected_NxL)


def test_a_collapsed_catalogue_takes_seconds():
  latent_Nxd = np.repeat(normal(20, 8), 400, axis=0)
  started = time.process_time()  # of this process alone: the machine may be busy
  codes_NxL, report = assign_semantic_ids(latent_Nxd, normal(4, 64, 8, seed=1), CONFIG, 'resolve')
  assert distinct(codes_NxL) == report['collided'] == 8000
  assert time.process_time() - started < 20
