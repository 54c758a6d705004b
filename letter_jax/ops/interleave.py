"""A batch in two halves, for XLA's CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def interleaved_halves(function: Callable[..., Any], *arrays: jax.Array) -> Any:
  """`function(*arrays)`, computed for the even rows and for the odd ones.

  XLA's CPU runs what is ready, so that the operations of one half fill the pauses of the other. On two cores a search
  answers 5 to 10% more users a second, and the tokenizer trains 5% more epochs. (Even and odd, not first and last: of
  rows that are spread over devices, evenly many on each, every device keeps its own.)

  Args:
    function: of rows that need nothing of each other; returns a tree of arrays of as many rows.
    arrays: [N, ...]; an odd N is computed at once.
  """
  rows = len(arrays[0])
  if rows % 2:
    return function(*arrays)
  halves = [function(*(array.reshape(rows // 2, 2, *array.shape[1:])[:, half] for array in arrays)) for half in (0, 1)]
  return jax.tree.map(lambda *parts: jnp.stack(parts, axis=1).reshape(rows, *parts[0].shape[1:]), *halves)
