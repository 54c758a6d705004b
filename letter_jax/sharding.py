"""Sharding: a mesh of devices with the axes 'data' and 'model', and partition rules for parameters.

Batches are split over 'data'. Parameters and optimizer state follow partition rules from the config
(`config.generator.partition`, ...): the first rule whose pattern matches the end of a parameter's name gives the axes
that its dimensions are split over. 'model' is tensor parallelism. 'data' is applied only with
`config.mesh.fully_sharded`: each array is then stored in pieces and gathered where it is used (FSDP, ZeRO stage 3). XLA
adds the communication.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from letter_jax.configuration import MeshConfig, Partition
from letter_jax.system.errors import InputError
from letter_jax.system.wording import counted


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh over `devices`; None: all devices of all processes.

  Raises:
    InputError: the product of the axes is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  data = len(devices) // config.model if config.data == -1 else config.data
  if data * config.model != len(devices):
    raise InputError(
      f'config.mesh.data is {config.data} and config.mesh.model {config.model}; expected a product of '
      f'{len(devices)}, the number of devices (-1: all that are left)'
    )
  # In the order of the processes, so that each holds neighbouring places along 'data'. jax.make_mesh arranges the chips
  # of a TPU in ring order, which separates those of one host; the compiler finds its rings in any order.
  in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(in_order).reshape(data, config.model), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
  """Sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Sharding of arrays whose dimension `axis` is split over 'data'."""
  return NamedSharding(mesh, PartitionSpec(*([None] * axis), 'data'))


def split_over_all(mesh: Mesh) -> NamedSharding:
  """Sharding of arrays with independent rows, which are split over all devices."""
  return NamedSharding(mesh, PartitionSpec(('data', 'model')))


def data_part(mesh: Mesh) -> tuple[int, int]:
  """The part of every batch that this process reads: (index, number of equal parts).

  Several processes may hold, and so read, the same part.

  Raises:
    InputError: the devices of this process do not hold exactly one of several equal parts.
  """
  return (0, 1) if is_planned(mesh) else part_of(mesh, jax.process_index())


def part_of(mesh: Mesh, process: int) -> tuple[int, int]:
  """`data_part` of the process with the index `process`."""
  places = [
    place
    for place, devices in enumerate(mesh.devices)
    if any(device.process_index == process for device in devices.flat)
  ]
  size = len(places)
  if places != list(range(places[0], places[0] + size)) or places[0] % size or len(mesh.devices) % size:
    raise InputError(
      f"config.mesh gives this process the places {places} of {len(mesh.devices)} along 'data'; expected "
      'one of several equal parts: change config.mesh.model'
    )
  return places[0] // size, len(mesh.devices) // size


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the state of a training is laid out on a mesh.

  Attributes:
    mesh: the devices.
    rules: (pattern, axes) pairs; an axis is 'data', 'model' or ''.
    fully_sharded: whether 'data' is applied.
    gathers: whether all parameters are gathered along 'data' before a step; otherwise XLA decides when to gather each.
  """

  mesh: Mesh
  rules: Partition = ()
  fully_sharded: bool = False
  gathers: bool = True

  def of(self, tree: Any) -> Any:
    """A sharding for each array (or shape) in a tree of parameters, or in a state that has such trees as subtrees."""
    return self._shardings(tree, self.fully_sharded)

  def gathered(self, params: Any) -> Any:
    """The parameters as a step uses them: not split over 'data'. For use inside jit."""
    if not (self.fully_sharded and self.gathers):
      return params
    return jax.lax.with_sharding_constraint(params, self._shardings(params, False))

  def constrain(self, tree: Any) -> Any:
    """The tree with the shardings of `of`. For use inside jit."""
    return jax.lax.with_sharding_constraint(tree, self.of(tree))

  def limited_to(self, params: Any) -> 'Layout':
    """This layout with only the rules that match some parameter of the tree."""
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    rules = tuple(rule for rule in self.rules if any(_matches(rule[0], name) for name in names))
    return dataclasses.replace(self, rules=rules)

  def require_matches(self, params: Any) -> None:
    """Raises InputError for a rule that matches no parameter of the tree, by its name and its number of dimensions."""
    shapes = {name_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for pattern, axes in self.rules:
      matched = {name: shape for name, shape in shapes.items() if _matches(pattern, name)}
      if not matched:
        raise InputError(
          f'config: the partition rule {pattern!r} matches no parameter; expected the end of a name such '
          f'as {", ".join(list(shapes)[:3])}'
        )
      if not any(len(shape) == len(axes) for shape in matched.values()):
        name, shape = next(iter(matched.items()))
        raise InputError(
          f'config: the partition rule {pattern!r} has {counted(len(axes), "axis", "axes")}, but {name} has the shape '
          f'{list(shape)}; expected an axis of the mesh, or an empty text, for each of its dimensions'
        )

  def _shardings(self, tree: Any, with_data: bool) -> Any:
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: self._sharding(name_of(path), leaf.shape, with_data), tree
    )

  def _sharding(self, name: str, shape: tuple[int, ...], with_data: bool) -> NamedSharding:
    axes = next((axes for pattern, axes in self.rules if len(axes) == len(shape) and _matches(pattern, name)), ())
    applied = ('data', 'model') if with_data else ('model',)
    # A dimension that is not divisible by the size of its axis is not split.
    return NamedSharding(
      self.mesh,
      PartitionSpec(
        *(axis if axis in applied and size % self.mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape))
      ),
    )


def on_one_device() -> Layout:
  """The layout that has everything on the default device of this process."""
  return Layout(make_mesh(MeshConfig(), jax.local_devices()[:1]))


def name_of(path: tuple[Any, ...]) -> str:
  """The name of a leaf, such as 'encoder_0/attention/query', from its path in a pytree."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _matches(pattern: str, name: str) -> bool:
  return re.search(f'(^|/)({pattern})$', name) is not None


def put(tree: Any, sharding: NamedSharding) -> Any:
  """A pytree of arrays, which every process holds whole, as global arrays; as abstract ones on a planned mesh."""
  if is_planned(cast(Mesh, sharding.mesh)):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)
  of_array = lambda array: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
  return jax.tree.map(lambda leaf: of_array(np.asarray(leaf)), tree)


def put_like(tree: Any, placed: Any) -> Any:
  """A pytree of arrays, which every process holds whole, laid out as the global arrays of another of its shapes."""
  return jax.tree.map(lambda leaf, like: put(leaf, like.sharding), tree, placed)


def fetch(tree: Any) -> Any:
  """A pytree of global arrays as NumPy arrays, on every process."""
  if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
    return jax.device_get(tree)
  mesh = jax.tree.leaves(tree)[0].sharding.mesh
  return jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, accumulation_steps: int) -> dict[str, jax.Array]:
  """A training batch as global arrays with their rows split over 'data'; as abstract ones on a planned mesh.

  Args:
    batch: the rows of this process' `data_part`, [rows, ...], or [micro-batches, rows, ...] with accumulation.
    mesh: the devices.
    accumulation_steps: the number of micro-batches.
  """
  rows = split_over_data(mesh, axis=int(accumulation_steps > 1))
  if is_planned(mesh):
    return put(batch, rows)
  return {name: jax.make_array_from_process_local_data(rows, leaf) for name, leaf in batch.items()}


def is_planned(mesh: Mesh) -> bool:
  """Whether the mesh is planned: its devices belong to a topology that programs are only compiled for."""
  return mesh.devices.flat[0] not in jax.devices()


def compute_dtype(name: str, mesh: Mesh) -> np.dtype:
  """`compute_dtype_on` the platform of the mesh."""
  return jnp.dtype(compute_dtype_on(mesh.devices.flat[0].platform, name))


def compute_dtype_on(platform: str, name: str) -> str:
  """The dtype of activations: `name`, or for 'auto' bfloat16 where it is faster (GPU, TPU) and float32 on CPU."""
  if name != 'auto':
    return name
  return 'float32' if platform == 'cpu' else 'bfloat16'


def padded_rows(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """`indices` padded to `size` with index 0, and weights float32 [size], 1 on the indices and 0 on the padding."""
  padding = (0, size - len(indices))
  return np.pad(indices, padding), np.pad(np.ones(len(indices), np.float32), padding)
