import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.tokenizer import clustering
from letter_jax.tokenizer.clustering import balanced_kmeans, cluster_codes, size_bounds, start_codebooks


def normal(points, width=4, seed=0):
  return np.random.default_rng(seed).normal(size=(points, width)).astype(np.float32)


def inertia(points_Nxd, centers_Kxd, labels_N):
  return float(np.sum((points_Nxd - np.asarray(centers_Kxd)[labels_N]) ** 2))


@pytest.mark.parametrize(
  'points, clusters, bounds',
  [(12101, 256, (23, 95)), (256, 10, (12, 52)), (32, 10, (2, 7)), (10, 256, (0, 1)), (15, 10, (1, 3)), (1, 1, (1, 2))],
)
def test_size_bounds_can_always_be_met(points, clusters, bounds):
  smallest, largest = size_bounds(points, clusters)
  assert (smallest, largest) == bounds
  assert smallest * clusters <= points <= largest * clusters


# Most cases are of one shape, which is compiled once.
@pytest.mark.parametrize(
  'points_Nxd, clusters',
  [
    (normal(60), 12),
    (np.ones((60, 4), np.float32), 12),
    (np.zeros((60, 4), np.float32), 12),
    (np.repeat(normal(5), 12, axis=0), 12),
    (1e15 * normal(60), 12),
    (1e4 + normal(60), 12),
    (np.concatenate([normal(59), np.full((1, 4), 1e6, np.float32)]), 12),
    (normal(13), 12),
    (normal(10), 32),
    (normal(1), 5),
  ],
  ids=[
    'plain',
    'all equal',
    'zeros',
    'duplicates',
    'large',
    'offset',
    'outlier',
    'one more',
    'few points',
    'one point',
  ],
)
def test_bounds_hold_whatever_the_points(points_Nxd, clusters):
  centers_Kxd, labels_N = map(np.asarray, balanced_kmeans(jax.random.key(0), points_Nxd, clusters))
  smallest, largest = size_bounds(len(points_Nxd), clusters)
  sizes_K = np.bincount(labels_N, minlength=clusters)
  assert centers_Kxd.shape == (clusters, 4) and sizes_K.shape == (clusters,)
  assert smallest <= sizes_K.min() and sizes_K.max() <= largest
  for cluster in range(clusters):
    members = points_Nxd[labels_N == cluster]
    if len(members):
      scale = np.abs(points_Nxd).max() + 1e-6
      np.testing.assert_allclose(centers_Kxd[cluster] / scale, members.mean(axis=0) / scale, atol=1e-5)
    else:
      assert np.any(np.all(centers_Kxd[cluster] == points_Nxd, axis=1))


def test_separate_clumps_are_found_exactly():
  clumps_Cxd = 20 * normal(12, seed=1)
  points_Nxd = np.repeat(clumps_Cxd, 5, axis=0) + 0.1 * normal(60)
  _, labels_N = balanced_kmeans(jax.random.key(0), points_Nxd, 12)
  labels_Cx5 = np.asarray(labels_N).reshape(12, 5)
  assert np.all(labels_Cx5 == labels_Cx5[:, :1]) and len(np.unique(labels_Cx5)) == 12


TIGHT_Nxd = normal(256, 8, seed=2) * np.where(np.arange(256) < 170, 0.05, 1)[:, None].astype(np.float32)


@pytest.mark.parametrize(
  'points_Nxd, clusters, exact, factor',
  [
    (normal(256, 8), 10, 1176.5, 1.03),
    (TIGHT_Nxd, 10, 411.1, 1.05),  # a clump of two thirds of the points: the bounds bind at every cluster
  ],
  ids=['codes', 'clump'],
)
def test_inertia_is_close_to_exact_balanced_kmeans(points_Nxd, clusters, exact, factor):
  # `exact`: k-means-constrained 0.9.1 at the same bounds, best of 10 starts.
  for seed in range(2):
    centers_Kxd, labels_N = balanced_kmeans(jax.random.key(seed), points_Nxd, clusters)
    assert inertia(points_Nxd, centers_Kxd, labels_N) <= factor * exact
    assert 12 <= np.bincount(labels_N).min() and np.bincount(labels_N).max() <= 52


def test_the_same_key_gives_the_same_clusters():
  points_Nxd = normal(60)
  first, again, other = (balanced_kmeans(jax.random.key(seed), points_Nxd, 12)[1] for seed in (3, 3, 4))
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


def test_codebooks_start_from_the_residuals_level_by_level():
  latent_Nxd = normal(400, 8)
  start = jax.jit(functools.partial(start_codebooks, levels=3, codebook_size=16))
  codebooks_LxKxd = np.asarray(start(jax.random.key(0), latent_Nxd))
  assert codebooks_LxKxd.shape == (3, 16, 8)
  residual_Nxd, errors = latent_Nxd, [np.sum(latent_Nxd**2)]
  for codebook_Kxd in codebooks_LxKxd:
    code_N = np.argmin(np.sum((residual_Nxd[:, None] - codebook_Kxd) ** 2, axis=-1), axis=1)
    assert np.bincount(code_N, minlength=16).min() > 0
    residual_Nxd = residual_Nxd - codebook_Kxd[code_N]
    errors.append(np.sum(residual_Nxd**2))
  ratios = np.divide(errors[1:], errors[:-1])
  assert np.all(ratios < 0.75)


def test_a_catalogue_smaller_than_the_codebook():
  codebooks_LxKxd = np.asarray(start_codebooks(jax.random.key(0), normal(10), levels=2, codebook_size=32))
  np.testing.assert_allclose(np.unique(codebooks_LxKxd[0], axis=0), np.unique(normal(10), axis=0), atol=1e-6)
  np.testing.assert_allclose(codebooks_LxKxd[1], 0, atol=1e-6)


def test_codes_are_clustered_codebook_by_codebook():
  codebooks_LxKxd = np.stack([normal(32, seed=1), np.repeat(30 * normal(8, seed=2), 4, axis=0) + 0.01 * normal(32)])
  labels_LxK = np.asarray(jax.jit(cluster_codes, static_argnums=2)(jax.random.key(0), codebooks_LxKxd, 8))
  assert labels_LxK.shape == (2, 32) and labels_LxK.dtype == np.int32
  for labels_K in labels_LxK:
    sizes = np.bincount(labels_K, minlength=8)
    assert sizes.size == 8 and sizes.min() >= 2 and sizes.max() <= 8
  assert np.all(labels_LxK[1].reshape(8, 4) == labels_LxK[1, ::4, None])


def test_more_clusters_than_codes():
  labels_LxK = np.asarray(cluster_codes(jax.random.key(0), normal(6)[None], 10))
  np.testing.assert_array_equal(np.sort(labels_LxK), np.arange(6)[None])


def test_ranks_by_comparing_are_those_of_sorting(monkeypatch):
  random = np.random.default_rng(5)
  points = 300
  arguments = (
    jnp.asarray(random.integers(0, 7, points), jnp.int32),
    jnp.asarray(random.integers(0, 40, points) / 8.0),
    jnp.asarray(random.random(points) < 0.8),
  )
  compared = clustering._rank(*arguments, 7)
  monkeypatch.setattr(clustering, '_COMPARED', 0)
  counts_N = np.asarray(arguments[2])
  np.testing.assert_array_equal(np.asarray(compared)[counts_N], np.asarray(clustering._rank(*arguments, 7))[counts_N])
