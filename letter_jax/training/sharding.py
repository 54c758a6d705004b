"""Where arrays live: data parallel over all devices.

One mesh axis, 'data'. Parameters are replicated, batches split over their leading axis; XLA adds the all-reduce.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
  """A mesh of all devices with the one axis 'data'."""
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Sharding that splits `axis` over the devices."""
  return NamedSharding(mesh, PartitionSpec(*([None] * axis), 'data'))


def put_split(batch, mesh: Mesh, axis: int = 0):
  """Host arrays as global arrays, `axis` split over the devices (its length must be a multiple of their number)."""
  return jax.device_put(batch, split(mesh, axis))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, accumulation_steps: int):
  """A training batch on the devices, rows split.

  `batch` has the rows of this process; with accumulation its leaves are [micro-batches, rows of each, ...].
  """
  rows = split(mesh, axis=int(accumulation_steps > 1))
  return {name: jax.make_array_from_process_local_data(rows, leaf) for name, leaf in batch.items()}


def round_up(count: int, multiple: int) -> int:
  return -(-count // multiple) * multiple


def padded_rows(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """`indices` filled up to `size` with index 0, and float32 weights that are 0 on the filling."""
  filling = size - len(indices)
  return np.pad(indices, (0, filling)), np.pad(np.ones(len(indices), np.float32), (0, filling))
