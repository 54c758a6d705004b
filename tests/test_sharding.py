import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.planning import plan
from letter_jax.system.errors import InputError


def test_padded_rows_repeat_index_0_with_weight_0():
  indices, weights = sharding.padded_rows(np.array([4, 7, 2]), 5)
  assert indices.tolist() == [4, 7, 2, 0, 0] and np.issubdtype(indices.dtype, np.integer)
  assert weights.tolist() == [1, 1, 1, 0, 0] and weights.dtype == np.float32
  indices, weights = sharding.padded_rows(np.array([3, 1]), 2)
  assert indices.tolist() == [3, 1] and weights.tolist() == [1, 1]


def test_batches_are_split_by_rows_behind_the_micro_batches():
  mesh = sharding.make_mesh(MeshConfig())
  assert mesh.axis_names == ('data', 'model') and mesh.size == jax.device_count()
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


RULES = (('(query|wi)', ('data', 'model')), ('out', ('model', 'data')), ('embedding', ('model', '')))
PARAMS = {
  'embedding': np.zeros((6, 3)),
  'layer': {
    'attention': {'query': np.zeros((4, 8)), 'out': np.zeros((8, 4)), 'out_bias': np.zeros(4)},
    'norm': {'query': np.zeros(4)},
  },
}


def specs(layout, tree):
  return jax.tree.map(lambda leaf: tuple(leaf.spec), layout.of(tree))


def test_the_first_rule_that_matches_gives_the_sharding():
  mesh = jax.sharding.AbstractMesh((4, 2), ('data', 'model'))
  assert specs(sharding.Layout(mesh, RULES), PARAMS) == {
    'embedding': ('model', None),
    'layer': {'attention': {'query': (None, 'model'), 'out': ('model', None), 'out_bias': ()}, 'norm': {'query': ()}},
  }
  state = specs(sharding.Layout(mesh, RULES, fully_sharded=True), {'params': PARAMS, 'opt_state': {'mu': PARAMS}})
  assert state['params']['layer']['attention'] == {'query': ('data', 'model'), 'out': ('model', 'data'), 'out_bias': ()}
  assert state['opt_state']['mu'] == state['params']


def test_dimensions_that_do_not_divide_stay_whole():
  mesh = jax.sharding.AbstractMesh((3, 8), ('data', 'model'))
  params = specs(sharding.Layout(mesh, RULES, fully_sharded=True), PARAMS)
  assert params['embedding'] == (None, None) and params['layer']['attention']['query'] == (None, 'model')


def test_a_rule_for_another_number_of_dimensions_is_an_error():
  layout = sharding.on_one_device()
  rules = (('embedding', ('model',)),)
  with pytest.raises(InputError, match="rule 'embedding' has 1 axis, but embedding has the shape"):
    sharding.Layout(layout.mesh, rules).require_matches(PARAMS)


def test_a_rule_that_matches_nothing_is_an_error():
  layout = sharding.on_one_device()
  sharding.Layout(layout.mesh, RULES[:2]).require_matches(PARAMS)
  with pytest.raises(InputError, match="the partition rule 'quer' matches no parameter"):
    sharding.Layout(layout.mesh, (('quer', ('data', 'model')),)).require_matches(PARAMS)


@pytest.mark.parametrize('axes', [dict(data=3), dict(model=2), dict(data=2, model=4)])
def test_a_mesh_of_the_wrong_size(axes):
  with pytest.raises(InputError, match=r'config.mesh.data is -?\d and config.mesh.model \d; expected a product of 1'):
    sharding.make_mesh(MeshConfig(**axes), jax.devices()[:1])


@pytest.mark.parametrize(
  'topology, model', [('v5e:4x4', 1), ('v5e:4x4', 4), ('v5e:4x4', 8), ('v6e:4x4', 2), ('v5p:2x2x2', 1), ('v4:2x2x2', 2)]
)
def test_every_host_of_a_pod_has_its_part_of_the_batch(topology, model):
  devices = plan.topology_devices(topology)
  mesh = sharding.make_mesh(MeshConfig(model=model), devices)
  hosts = sorted({device.process_index for device in devices})
  parts = [sharding.part_of(mesh, host) for host in hosts]
  (count,) = {count for _, count in parts}
  assert len(hosts) > 1 and {part for part, _ in parts} == set(range(count))
  # A host's part is where its devices are: rows part / count of each batch.
  for host, (part, _) in zip(hosts, parts):
    size = len(mesh.devices) // count
    rows = mesh.devices[part * size : (part + 1) * size]
    assert any(device.process_index == host for device in rows.flat)
