"""Batches of users: how many there are at once, how wide their histories are padded, and how devices share them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from letter_jax import sharding
from letter_jax.decoding.compiled import compiled_for_users
from letter_jax.ops.rounding import round_up

# Histories are padded to the next of these widths (in items), with one compiled program for each. Three eighths of the
# test histories of 5-core data have four items, seven eighths at most ten.
BUCKETS = (4, 5, 6, 8, 11, 15, 20)

# Where few programs count for more than little padding, histories of up to so many items have one of their own.
NARROW = 10

# A batch of fewer users than the whole batch has the next of these numbers of rows.
ROWS = (1, 4, 16)


class UserBatches:
  """The batches of users that a search takes.

  Attributes:
    mesh: the devices.
    size: users searched at once, over all devices.
    longest: the most history items that the model has room for; None: any number.
    sharding: of arrays with one row per user.
    sharded_params: whether the parameters stay sharded.
  """

  def __init__(self, mesh: Mesh, size: int, longest: int | None = None, sharded_params: bool = False):
    """Describes the batches.

    Args:
      mesh: the devices.
      size: users searched at once, over all devices; rounded up to a multiple of the devices.
      longest: the most history items that the model has room for; longer histories keep their latest items.
      sharded_params: keep the parameters sharded, for models that fit on no single device, and let XLA add the
        communication; otherwise every device has all parameters and its own users.
    """
    self.mesh, self.size, self.longest = mesh, round_up(size, mesh.size), longest
    self.sharding = sharding.split_over_data(mesh) if sharded_params else sharding.split_over_all(mesh)
    self.sharded_params = sharded_params

  def rows(self, users: int) -> int:
    """The rows of a batch for `users` users: the next of `all_rows`."""
    return next((rows for rows in self.all_rows if rows >= users), self.size)

  @property
  def all_rows(self) -> tuple[int, ...]:
    """The different numbers of rows of a batch, ascending: ROWS rounded up to the devices, and the whole batch."""
    return tuple(sorted({min(round_up(rows, self.mesh.size), self.size) for rows in (*ROWS, self.size)}))

  def widths(self, longest: int) -> np.ndarray:
    """The widths that histories of up to `longest` items are padded to, in ascending order."""
    if self.longest is not None:
      longest = min(longest, self.longest)
    return np.array(sorted({*(width for width in BUCKETS if width < longest), longest}))

  def few_widths(self, longest: int) -> np.ndarray:
    """As `widths`, but two at most."""
    longest = int(self.widths(longest)[-1])
    return np.unique([min(NARROW, longest), longest])

  def put(self, arrays: Any) -> Any:
    """Arrays with one row per user, on the devices."""
    return sharding.put(arrays, self.sharding)

  def compiled(self, local: Callable[..., Any], num_user_arrays: int) -> jax.stages.Wrapped:
    """Jits `local(params, *arrays)` over all devices; the first arrays have a row per user, the rest are replicated."""
    return compiled_for_users(local, num_user_arrays, self.sharding, self.sharded_params)
