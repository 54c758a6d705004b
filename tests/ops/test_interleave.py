"""Batches in two halves."""

import jax.numpy as jnp
import numpy as np
import pytest

from letter_jax.ops.interleave import interleaved_halves


@pytest.mark.parametrize('rows, traced', [(6, [3]), (5, [5]), (2, [1]), (1, [1])])
def test_rows_come_out_in_their_order(rows, traced):
  seen = []

  def function(a_Nx3, b_N):
    seen.append(len(b_N))
    return {'sum': a_Nx3 + b_N[:, None], 'twice': 2 * b_N}

  a_Nx3, b_N = jnp.arange(3 * rows).reshape(rows, 3), 10 * jnp.arange(rows)
  found = interleaved_halves(function, a_Nx3, b_N)
  np.testing.assert_array_equal(found['sum'], a_Nx3 + b_N[:, None])
  np.testing.assert_array_equal(found['twice'], 2 * b_N)
  assert seen == traced
