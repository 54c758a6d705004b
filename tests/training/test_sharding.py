import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from letter_jax.training import sharding


@pytest.mark.parametrize('count, multiple, expected', [(0, 4, 0), (1, 4, 4), (4, 4, 4), (5, 4, 8), (7, 1, 7)])
def test_round_up(count, multiple, expected):
  assert sharding.round_up(count, multiple) == expected


def test_padded_rows_repeat_index_0_with_weight_0():
  indices, weights = sharding.padded_rows(np.array([4, 7, 2]), 5)
  assert indices.tolist() == [4, 7, 2, 0, 0] and np.issubdtype(indices.dtype, np.integer)
  assert weights.tolist() == [1, 1, 1, 0, 0] and weights.dtype == np.float32
  indices, weights = sharding.padded_rows(np.array([3, 1]), 2)
  assert indices.tolist() == [3, 1] and weights.tolist() == [1, 1]


def test_batches_are_split_by_rows_behind_the_micro_batches():
  mesh = sharding.data_mesh()
  assert mesh.axis_names == ('data',) and mesh.size == jax.device_count()
  rows = 4 * mesh.size
  batch = {'items_BxC': np.arange(rows * 3).reshape(rows, 3), 'targets_B': np.arange(rows)}
  whole = sharding.put_batch(batch, mesh, 1)
  assert {name: leaf.shape for name, leaf in whole.items()} == {'items_BxC': (rows, 3), 'targets_B': (rows,)}
  assert whole['items_BxC'].sharding.spec == PartitionSpec('data')
  halves = {name: leaf.reshape(2, rows // 2, *leaf.shape[1:]) for name, leaf in batch.items()}
  micro = sharding.put_batch(halves, mesh, 2)
  assert micro['items_BxC'].shape == (2, rows // 2, 3) and micro['targets_B'].shape == (2, rows // 2)
  assert micro['items_BxC'].sharding.spec == PartitionSpec(None, 'data')
  for name, leaf in batch.items():
    np.testing.assert_array_equal(whole[name], leaf)
    np.testing.assert_array_equal(np.concatenate(np.asarray(micro[name])), leaf)


def test_over_eight_devices_rows_are_split_and_parameters_are_not():
  mesh = jax.sharding.AbstractMesh((8,), ('data',))
  assert sharding.split(mesh).shard_shape((16, 3)) == (2, 3)
  assert sharding.split(mesh, axis=1).shard_shape((2, 16)) == (2, 2)
  assert sharding.replicated(mesh).shard_shape((16, 3)) == (16, 3)
