"""Where arrays live: a mesh of devices with the axes 'data' and 'model', and rules that say how arrays lie on it.

Batches are split over 'data'. Parameters and optimizer state follow partition rules, which are data in the config
(`config.generator.partition`, ...): of the first whose pattern ends a parameter's name, the axes are those that its
dimensions are split over. 'model' is tensor parallelism. 'data' counts where `config.mesh.fully_sharded` is set: each
array then lies in pieces and is gathered where it is used (FSDP, ZeRO stage 3). XLA adds the communication.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from letter_jax.configuration import MeshConfig, Partition
from letter_jax.system.errors import InputError


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
  """The mesh of all devices of all processes, or of those that are given.

  Raises:
    InputError: the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  data = len(devices) // config.model if config.data == -1 else config.data
  if data * config.model != len(devices):
    raise InputError(
      f'config.mesh.data is {config.data} and config.mesh.model {config.model}; expected a product of '
      f'{len(devices)}, the number of devices (-1: all that are left)'
    )
  # In the order of the processes, so that each holds neighbouring places along 'data'. jax.make_mesh puts the chips of
  # a TPU in ring order, which tears the hosts apart; the compiler finds its rings in any order.
  in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
  return Mesh(np.array(in_order).reshape(data, config.model), ('data', 'model'), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Sharding that splits `axis` over 'data'."""
  return NamedSharding(mesh, PartitionSpec(*([None] * axis), 'data'))


def split_over_all(mesh: Mesh) -> NamedSharding:
  """Sharding of rows that need nothing of each other: over all devices."""
  return NamedSharding(mesh, PartitionSpec(('data', 'model')))


def data_part(mesh: Mesh) -> tuple[int, int]:
  """Which of how many equal parts of every batch this process' devices hold; several may hold the same.

  Raises:
    InputError: no process holds a whole part.
  """
  return (0, 1) if is_planned(mesh) else part_of(mesh, jax.process_index())


def part_of(mesh: Mesh, process: int) -> tuple[int, int]:
  """`data_part` of any process."""
  here = [
    place
    for place, of_place in enumerate(mesh.devices)
    if any(device.process_index == process for device in of_place.flat)
  ]
  size = len(here)
  if here != list(range(here[0], here[0] + size)) or here[0] % size or len(mesh.devices) % size:
    raise InputError(
      f"config.mesh gives this process the places {here} of {len(mesh.devices)} along 'data'; expected "
      'a part like that of the others: another config.mesh.model'
    )
  return here[0] // size, len(mesh.devices) // size


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the state of a training lies on a mesh.

  Attributes:
    rules: (pattern, axes) pairs; an axis is 'data', 'model' or ''.
    fully_sharded: whether 'data' counts.
    gathers: whether parameters are gathered whole along 'data' before a step; else XLA gathers what it needs, when.
  """

  mesh: Mesh
  rules: Partition = ()
  fully_sharded: bool = False
  gathers: bool = True

  def of(self, tree) -> Any:
    """A sharding for each array (or shape) of a tree of parameters, or of a state that has them as subtrees."""
    return self._shardings(tree, self.fully_sharded)

  def gathered(self, params):
    """Parameters as they are used: whole along 'data'. Inside jit; gradients go back as they are stored."""
    if not (self.fully_sharded and self.gathers):
      return params
    return jax.lax.with_sharding_constraint(params, self._shardings(params, False))

  def constrain(self, tree):
    """The same tree, laid out as `of` says. Inside jit."""
    return jax.lax.with_sharding_constraint(tree, self.of(tree))

  def limited_to(self, params) -> 'Layout':
    """With those of the rules alone that fit one of the parameters."""
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    fitting = tuple(rule for rule in self.rules if any(_fits(rule[0], name) for name in names))
    return dataclasses.replace(self, rules=fitting)

  def require_matches(self, params) -> None:
    """Raises InputError for a rule that fits no parameter."""
    names = [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in self.rules:
      if not any(_fits(pattern, name) for name in names):
        raise InputError(
          f'config: the partition rule {pattern!r} fits no parameter; expected the end of a name such '
          f'as {", ".join(names[:3])}'
        )

  def _shardings(self, tree, with_data: bool):
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: self._sharding(name_of(path), leaf.shape, with_data), tree
    )

  def _sharding(self, name: str, shape: tuple[int, ...], with_data: bool) -> NamedSharding:
    axes = next((axes for pattern, axes in self.rules if len(axes) == len(shape) and _fits(pattern, name)), ())
    wanted = ('data', 'model') if with_data else ('model',)
    # A dimension that does not divide stays whole.
    return NamedSharding(
      self.mesh,
      PartitionSpec(
        *(axis if axis in wanted and size % self.mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape))
      ),
    )


def on_one_device() -> Layout:
  """Everything on the default device of this process."""
  return Layout(make_mesh(MeshConfig(), jax.local_devices()[:1]))


def name_of(path) -> str:
  """'encoder_0/attention/query' of a path in a tree."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _fits(pattern: str, name: str) -> bool:
  return re.search(f'(^|/)({pattern})$', name) is not None


def put(tree, sharding: NamedSharding):
  """Arrays that every process holds whole, as global arrays; only their shapes where the mesh is to be planned for."""
  if is_planned(sharding.mesh):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)
  of_array = lambda array: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
  return jax.tree.map(lambda leaf: of_array(np.asarray(leaf)), tree)


def fetch(tree):
  """Host copies of global arrays, on every process."""
  if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
    return jax.device_get(tree)
  mesh = jax.tree.leaves(tree)[0].sharding.mesh
  return jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, accumulation_steps: int):
  """A training batch on the devices, rows split over 'data'.

  `batch` has the rows of this process' `data_part`; with accumulation its leaves are [micro-batches, rows, ...].
  """
  rows = split_over_data(mesh, axis=int(accumulation_steps > 1))
  if is_planned(mesh):
    return put(batch, rows)
  return {name: jax.make_array_from_process_local_data(rows, leaf) for name, leaf in batch.items()}


def is_planned(mesh: Mesh) -> bool:
  """Whether its devices are of a topology that programs are only compiled for."""
  return mesh.devices.flat[0] not in jax.devices()


def compute_dtype(name: str, mesh: Mesh) -> np.dtype:
  """'auto' is bfloat16 where the hardware gains from it (GPU, TPU) and float32 on CPU."""
  if name == 'auto':
    name = 'float32' if mesh.devices.flat[0].platform == 'cpu' else 'bfloat16'
  return jnp.dtype(name)


def padded_rows(indices: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """`indices` filled up to `size` with index 0, and float32 weights that are 0 on the filling."""
  filling = size - len(indices)
  return np.pad(indices, (0, filling)), np.pad(np.ones(len(indices), np.float32), (0, filling))
