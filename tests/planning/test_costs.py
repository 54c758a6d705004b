"""Costs against counts by hand, of programs that libtpu compiles for chips that this machine lacks."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from letter_jax import sharding
from letter_jax.configuration import MeshConfig
from letter_jax.planning import costs, plan

ROWS, INPUTS, OUTPUTS = 1024, 512, 2048


@pytest.fixture(scope='module')
def mesh():
  return sharding.make_mesh(MeshConfig(data=4, model=2), plan.topology_devices('v5e:2x4'))


def array(mesh, shape, *axes):
  return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


def dense_arguments(mesh):
  return array(mesh, (ROWS, INPUTS), 'data'), array(mesh, (INPUTS, OUTPUTS), None, 'model')


def test_a_dense_layer(mesh):
  cost = costs.cost_of(jax.jit(lambda x, w: x @ w).trace(*dense_arguments(mesh)))
  assert cost.flops == 2 * ROWS * INPUTS * OUTPUTS / 8
  x, w, y = 2 * ROWS * INPUTS / 4, 2 * INPUTS * OUTPUTS / 2, 2 * ROWS * OUTPUTS / 8
  assert cost.arguments == x + w and cost.memory >= x + w + y and not cost.collectives
  assert x + w + y <= cost.bytes < 4 * (x + w + y)


@pytest.mark.parametrize(
  'flops, moved, collectives, seconds',
  [
    (4e12, 1e9, {}, 2.0),  # bound by the matrix unit
    (1e12, 9e9, {}, 3.0),  # by the memory
    (1e12, 9e9, {'all-gather': 1e8}, 3.25),
    # An all-reduce sends its result twice.
    (0.0, 0.0, {'all-reduce': 2e8, 'reduce-scatter': 1e8, 'all-to-all': 2e8, 'collective-permute': 1e8}, 2.0),
  ],
)
def test_seconds_of_a_chip_with_round_rates(flops, moved, collectives, seconds):
  chip = costs.Chip(memory=1e9, flops=2e12, bandwidth=3e9, network=4e8, axes=2)
  cost = costs.Cost(arguments=0, temporaries=0, memory=0, flops=flops, bytes=moved, collectives=collectives)
  assert cost.seconds(chip) == pytest.approx(seconds)


def test_a_compiled_program_is_as_fast_as_published_rates_allow(mesh):
  cost = costs.cost_of(jax.jit(lambda x, w: x @ w).trace(*dense_arguments(mesh)))
  # 2 * 1024 * 512 * 2048 flops on eight chips of 197 Tflop/s take 1.36 us; the memory takes longer, at least the
  # 0.26 + 1.05 + 0.52 MB of arguments and result at 819 GB/s.
  assert 2.24e-6 < cost.seconds(costs.CHIPS['v5e']) < 4 * 2.25e-6


def test_a_loop_counts_as_often_as_it_runs(mesh):
  def loop(x, w):
    return jax.lax.scan(lambda x, _: ((x @ w) @ w.T, None), x, None, length=10)[0]

  x, w = array(mesh, (ROWS, INPUTS), 'data'), array(mesh, (INPUTS, OUTPUTS), None, 'model')
  cost = costs.cost_of(jax.jit(loop).trace(x, w))
  assert cost.flops == pytest.approx(10 * 2 * 2 * ROWS * INPUTS * OUTPUTS / 8, rel=1e-2)
  # The second product leaves a sum over 'model' to be added up each time: [rows / 4, inputs] of two or four bytes.
  assert cost.collectives['all-reduce'] in [10 * bytes * ROWS / 4 * INPUTS for bytes in (2, 4)]


def test_rounds_that_only_the_data_know_count_once(mesh):
  """As Sinkhorn: an inner loop counts to the bound or ends early, the outer goes on from where it ended."""

  def rounds(x, w, limit):
    def inner_round(state):
      done, x, size = state
      return done + 1, ((x @ w) @ w.T).astype(x.dtype), 2 * size

    def outer_round(state):
      done, x = state
      within = lambda state: (state[0] < 40) & (state[2] < limit)
      return jax.lax.while_loop(within, inner_round, (done, x, jnp.float32(1)))[:2]

    return jax.lax.while_loop(lambda state: state[0] < 40, outer_round, (0, x))[1]

  limit = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
  x, w = array(mesh, (ROWS, INPUTS), 'data'), array(mesh, (INPUTS, OUTPUTS), None, 'model')
  cost = costs.cost_of(jax.jit(rounds).trace(x, w, limit))
  assert cost.collectives['all-reduce'] in [40 * bytes * ROWS / 4 * INPUTS for bytes in (2, 4)]

  def strides(x, w, stride):
    body = lambda state: (state[0] + stride, ((state[1] @ w) @ w.T).astype(x.dtype))
    return jax.lax.while_loop(lambda state: state[0] < 40, body, (0, x))[1]

  stride = jax.ShapeDtypeStruct((), jnp.int32, sharding=limit.sharding)
  cost = costs.cost_of(jax.jit(strides).trace(x, w, stride))
  assert cost.collectives['all-reduce'] in [bytes * ROWS / 4 * INPUTS for bytes in (2, 4)]


def test_a_weight_in_pieces_is_gathered(mesh):
  x, w = array(mesh, (ROWS, INPUTS), 'data'), array(mesh, (INPUTS, OUTPUTS), 'data', None)
  whole = NamedSharding(mesh, PartitionSpec())
  cost = costs.cost_of(jax.jit(lambda x, w: x @ jax.lax.with_sharding_constraint(w, whole)).trace(x, w))
  assert cost.collectives == {'all-gather': 2 * INPUTS * OUTPUTS}


def test_of_a_sum_over_rows_each_device_keeps_its_piece(mesh):
  x, split = array(mesh, (ROWS, INPUTS), 'data'), NamedSharding(mesh, PartitionSpec('data', None))
  cost = costs.cost_of(jax.jit(lambda x: x.T @ x, out_shardings=split).trace(x))
  assert cost.collectives == {'reduce-scatter': 2 * INPUTS * INPUTS}


# As libtpu writes them: an asynchronous gather in three fusions, groups in three forms, a start with its operand.
WRITTEN = """
HloModule m

%gather.1 (p: bf16[8,16]) -> bf16[64,16] {
  ROOT %all-gather.1 = bf16[64,16]{1,0} all-gather(%p), channel_id=2, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}

%gather.2 (p: bf16[8,16]) -> bf16[64,16] {
  ROOT %all-gather.2 = bf16[64,16]{1,0} all-gather(%p), channel_id=2, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}

ENTRY %main (x: bf16[8,16]) -> f32[4] {
  %x = bf16[8,16]{1,0} parameter(0)
  %f1 = bf16[64,16]{1,0} fusion(%x), kind=kCustom, calls=%gather.1
  %f2 = bf16[64,16]{1,0} fusion(%x), kind=kCustom, calls=%gather.2
  %s1 = f32[2]{0} reduce-scatter(%f1), channel_id=3, replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add
  %s2 = f32[2]{0} reduce-scatter(%f1), channel_id=4, replica_groups=[2,4]<=[8], to_apply=%add
  %s3 = f32[2]{0} reduce-scatter(%f1), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %r = f32[4]{0} all-reduce-start(%s1), channel_id=6, replica_groups={{0,1}}, to_apply=%add
  %p = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%r), channel_id=7
  %g = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%x), channel_id=8, replica_groups={{0,1}}, dimensions={0}
  ROOT %end = f32[4]{0} all-reduce-done(%r)
}
"""


def test_each_collective_counts_once_and_with_its_result():
  assert costs._Program(WRITTEN).collectives == {
    'all-gather': 2 * 64 * 16 + 2 * 64,
    'reduce-scatter': 3 * 4 * 2 * 4,
    'all-reduce': 16,
    'collective-permute': 16,
  }
