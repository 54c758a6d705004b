import numpy as np

from letter_jax.tokenizer.diagnostics import diagnose, id_groups


def test_use_of_codes_and_collisions():
  found = diagnose(np.array([[0, 1], [0, 1], [0, 1], [1, 0], [0, 2]], np.int32), codebook_size=4)
  assert found['codes_used'] == [2, 3]
  entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2)), -(0.6 * np.log(0.6) + 0.4 * np.log(0.2))
  np.testing.assert_allclose(found['perplexity'], np.exp(entropy))
  np.testing.assert_allclose(found['collision_rate'], 2 / 5)
  assert found['largest_group'] == 3


def test_even_use_and_no_collision():
  found = diagnose(np.stack([np.arange(16) // 4, np.arange(16) % 4], axis=1), codebook_size=4)
  assert found['codes_used'] == [4, 4]
  np.testing.assert_allclose(found['perplexity'], [4, 4])
  assert found['collision_rate'] == 0 and found['largest_group'] == 1


def test_groups_are_whole_ids_at_any_depth():
  random = np.random.default_rng(0)
  codes_NxL = random.integers(0, 2, (64, 5))
  expected = np.unique(codes_NxL, axis=0, return_inverse=True)[1].ravel()
  np.testing.assert_array_equal(id_groups(codes_NxL), expected)
  deep_NxL = np.full((3, 12), 255)  # 256**12 is far beyond int64
  deep_NxL[2, 0] = 0
  np.testing.assert_array_equal(id_groups(deep_NxL), [1, 1, 0])
